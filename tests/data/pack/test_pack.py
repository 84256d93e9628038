import hashlib
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from shard_files import member, npy, write_tar

from ssl_lens.cli import main as cli
from ssl_lens.data import images as images_module
from ssl_lens.data.images import UNLABELLED, load_images, pack_images
from ssl_lens.data.pack.pack import damages, is_pack
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)
_PLAIN = {"policy": PixelPolicy(), "layout": "auto", "table": None}


@pytest.fixture
def root(tmp_path):
    for i, name in enumerate(("train/a/0.npy", "train/b/1.npy", "test/a/2.npy", "test/b/3.npy")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / name, _RNG.normal(size=(8, 8)) + i)
    (tmp_path / "set" / "targets.csv").write_text("file,z\ntrain/a/0.npy,0.25\ntest/b/3.npy,1e-24\n")
    return tmp_path / "set"


def test_a_pack_is_the_set_it_was_made_of(root, tmp_path):
    loaded = load_images(root, cache=tmp_path / "cache")
    made = pack_images(root, tmp_path / "out" / "pack", **_PLAIN)
    for other in (made, load_images(tmp_path / "out" / "pack", cache=tmp_path / "unused")):
        assert other.names == loaded.names == ("test/a/2.npy", "test/b/3.npy", "train/a/0.npy", "train/b/1.npy")
        assert other.classes == loaded.classes == ("a", "b")
        assert other.labels.tolist() == loaded.labels.tolist() == [0, 1, 0, 1]
        assert other.held_out.tolist() == loaded.held_out.tolist() == [True, True, False, False]
        np.testing.assert_array_equal(other.targets["z"], [np.nan, 1e-24, 0.25, np.nan])
        np.testing.assert_array_equal(loaded.targets["z"], other.targets["z"])
        np.testing.assert_array_equal(other.images, loaded.images)
    assert not (tmp_path / "unused").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pack"]
    mapped = np.load(tmp_path / "out" / "pack" / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(mapped, loaded.images)


def test_the_manifest_holds_hashes_that_tell_damage(root, tmp_path):
    pack = tmp_path / "pack"
    loaded = pack_images(root, pack, **_PLAIN)
    hashes = dict(line.split("  ")[::-1] for line in (pack / "images.sha256").read_text().splitlines())
    assert hashes["train/a/0.npy"] == hashlib.sha256(loaded.images[2].tobytes()).hexdigest()
    manifest = json.loads((pack / "manifest.json").read_text())
    assert (manifest["images"], manifest["shape"], manifest["source"]) == (4, [1, 8, 8], str(root))
    assert manifest["sha256"]["images.csv"] == hashlib.sha256((pack / "images.csv").read_bytes()).hexdigest()
    assert list(damages(pack)) == []
    with (pack / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert list(damages(pack)) == ["train/b/1.npy"]


def _refused(pack, message):
    with pytest.raises(InputError, match=message) as raised:
        load_images(pack)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["images.npy", "images.csv", "images.sha256", "manifest.json"])
def test_no_file_of_a_pack_may_be_cut_missing_or_of_another(root, tmp_path, name):
    """Another pack: of the same names, classes and shapes, but other pixels and numbers."""
    pack_images(root, tmp_path / "pack", **_PLAIN)
    for i, file in enumerate(sorted(root.rglob("*.npy"))):
        np.save(file, np.load(file) - i - 1)
    (root / "targets.csv").write_text("file,z\ntrain/a/0.npy,0.5\ntest/b/3.npy,1e-24\n")
    pack_images(root, tmp_path / "other", **_PLAIN)
    path = tmp_path / "pack" / name
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:1], b"", (tmp_path / "other" / name).read_bytes()):
        if name == "manifest.json" and content == whole[:-1]:
            continue  # its last byte is a line end
        path.write_bytes(content)
        _refused(tmp_path / "pack", "pack the images again")
        assert cli.main(["data", "check", str(tmp_path / "pack"), "--out", str(tmp_path / "out")]) == 2
    path.unlink()
    _refused(tmp_path / "pack", "No such file or directory.*; pack the images again")
    path.write_bytes(whole)
    assert len(load_images(tmp_path / "pack")) == 4


def test_manifests_that_are_none_are_refused_in_one_line(root, tmp_path):
    pack_images(root, tmp_path / "pack", **_PLAIN)
    manifest = json.loads((tmp_path / "pack" / "manifest.json").read_text())
    for text in ("[]", "null", "1", '"ssl_lens"', "\xff", "{" * 10):
        (tmp_path / "pack" / "manifest.json").write_text(text)
        _refused(tmp_path / "pack", "is not the manifest of a pack")
    (tmp_path / "pack" / "manifest.json").write_text(json.dumps(manifest | {"format": "ssl_lens pack 2"}))
    _refused(tmp_path / "pack", "of format 'ssl_lens pack 2', not")
    for key in manifest.keys() - {"format", "source"}:
        for wrong in (None, "x", [["a"]]):
            (tmp_path / "pack" / "manifest.json").write_text(json.dumps(manifest | {key: wrong}))
            _refused(tmp_path / "pack", "pack the images again")
        (tmp_path / "pack" / "manifest.json").write_text(json.dumps({k: manifest[k] for k in manifest.keys() - {key}}))
        _refused(tmp_path / "pack", "pack the images again")


def test_a_pack_of_another_policy_is_refused(root, tmp_path):
    image = np.load(root / "train/a/0.npy")
    image[0, :3] = 100
    np.save(root / "train/a/0.npy", image)
    pack_images(root, tmp_path / "plain", **_PLAIN)
    policy = PixelPolicy(mask_value=100, sizes="crop", size=(6, 7))
    packed = pack_images(root, tmp_path / "masked", policy=policy, layout="auto", table=None)
    assert packed.policy == load_images(tmp_path / "masked").policy == policy
    assert packed.images.shape == (4, 1, 6, 7)
    with pytest.raises(InputError, match="packed with mask_value=None, but mask_value=100 is needed; pack"):
        load_images(tmp_path / "plain", policy=PixelPolicy(mask_value=100))
    with pytest.raises(InputError, match="packed to 8x8 px, but size=6x7 is needed; pack"):
        load_images(tmp_path / "plain", policy=PixelPolicy(sizes="crop", size=(6, 7)))


def test_a_pack_is_whole_or_absent(root, tmp_path, monkeypatch):
    for _ in range(3):
        (root / "train" / "a" / f"bad{_}.npy").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3 of 7 images in .*set are unusable, .*listed in .*pack.quarantine.tsv"):
        pack_images(root, tmp_path / "pack", **_PLAIN)
    assert not (tmp_path / "pack").exists()
    assert len((tmp_path / "pack.quarantine.tsv").read_text().splitlines()) == 3
    for _ in range(3):
        (root / "train" / "a" / f"bad{_}.npy").unlink()

    def full(*_, complete):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images_module, "make_pack", full)
    with pytest.raises(InputError, match="cannot pack .*set into .*pack: No space left on device; choose"):
        pack_images(root, tmp_path / "pack", **_PLAIN)
    monkeypatch.undo()
    pack_images(root, tmp_path / "pack", **_PLAIN)
    with pytest.raises(InputError, match="pack exists already"):
        pack_images(root, tmp_path / "pack", **_PLAIN)
    with pytest.raises(InputError, match="is a pack already; use it as it is"):
        pack_images(tmp_path / "pack", tmp_path / "again", **_PLAIN)
    assert is_pack(tmp_path / "pack")
    assert not is_pack(root)


def test_two_processes_pack_to_the_same_place_at_once(root, tmp_path, monkeypatch):
    """The other is always done while this one is at it."""
    make_pack, others = images_module.make_pack, []

    def overtaken(found, folder, complete):
        if not others:
            others.append(None)
            others[0] = pack_images(root, tmp_path / "pack", **_PLAIN)
        make_pack(found, folder, complete)

    monkeypatch.setattr(images_module, "make_pack", overtaken)
    with pytest.raises(InputError, match="pack was made by another process meanwhile; use that, or give a new folder"):
        pack_images(root, tmp_path / "pack", **_PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "set"]
    assert len(load_images(tmp_path / "pack")) == 4
    assert list(damages(tmp_path / "pack")) == []


def test_two_processes_at_any_time_leave_one_whole_pack(root, tmp_path):
    code = (
        "import sys; from pathlib import Path; from ssl_lens.data.images import pack_images\n"
        "from ssl_lens.data.pixels.policy import PixelPolicy; from ssl_lens.errors import one_line_errors\n"
        "root, out = map(Path, sys.argv[1:])\n"
        "pack = lambda: pack_images(root, out, policy=PixelPolicy(), layout='auto', table=None) and None\n"
        "sys.exit(one_line_errors(pack)())"
    )
    command = [sys.executable, "-c", code, str(root), str(tmp_path / "pack")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2]
    (error,) = "".join(errors).splitlines()
    assert "exists already; give" in error or "by another process meanwhile" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pack", "set"]
    assert list(damages(tmp_path / "pack")) == []


def test_numbers_that_would_be_taken_for_something_else_are_refused(tmp_path):
    for name in ("name", "class", "part", "split"):
        _write_tar_with(tmp_path / "set" / "a.tar", name)
        with pytest.raises(InputError, match=f"the number {name} of the images has the name of another column"):
            load_images(tmp_path / "set", cache=tmp_path / "cache")
    for name in ("a\nb", "\ud800", "a\tb"):
        _write_tar_with(tmp_path / "set" / "a.tar", name)
        with pytest.raises(InputError, match="has a number called '.*'; needed are printable characters") as error:
            load_images(tmp_path / "set", cache=tmp_path / "cache")
        assert "\n" not in str(error.value)
    for name in ('a"b,c', "", "#", " x ", "é"):
        _write_tar_with(tmp_path / "set" / "a.tar", name)
        for _ in range(2):
            assert load_images(tmp_path / "set", cache=tmp_path / "cache").targets == {name: [3.5]}


def _write_tar_with(path, number):
    write_tar(
        path, [member("a.npy", npy(_RNG.normal(size=(8, 8)))), member("a.json", json.dumps({number: 3.5}).encode())]
    )


def test_a_label_of_two_lines_is_kept(root, tmp_path):
    (tmp_path / "t.csv").write_text('file,label\ntrain/a/0.npy,"x\ny"\ntest/b/3.npy,"a ""b"", c"\n')
    made = pack_images(root, tmp_path / "pack", policy=PixelPolicy(), layout="auto", table=tmp_path / "t.csv")
    assert made.classes == ('a "b", c', "x\ny")


def test_a_table_is_a_set(root, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    np.save(tmp_path / "elsewhere.npy", _RNG.normal(size=(20, 1, 8, 8)))
    rows = [
        f"{root}/train/a/0.npy,lens,3",
        "set/train/b/1.npy,,4",
        "elsewhere.npy#000003,none,5",
        "set/test/a/2.npy,lens,",
    ]
    (tmp_path / "sample.csv").write_text("\n".join(["file,label,mag", *rows]))
    loaded = load_images(tmp_path / "sample.csv", cache=tmp_path / "cache")
    names = (f"{root}/train/a/0.npy", "elsewhere.npy#000003", "set/test/a/2.npy", "set/train/b/1.npy")
    assert loaded.names == names
    assert loaded.labels.tolist() == [0, 1, 0, UNLABELLED]
    assert loaded.classes == ("lens", "none")
    np.testing.assert_array_equal(loaded.targets["mag"], [3, 5, np.nan, 4])
    np.testing.assert_array_equal(loaded.images[1], np.load(tmp_path / "elsewhere.npy")[3].astype(np.float32))
    assert "classes 0 lens (2), 1 none (1), unlabelled (1)" in caplog.text
    labelled = loaded.labelled()
    assert labelled.names == names[:3]
    assert labelled.labels.tolist() == [0, 1, 0]


def test_what_a_table_lists_and_is_not_there(root, tmp_path):
    (tmp_path / "t.csv").write_text("file,z\nset/train/a/0.npy,1\nset/none.npy,2\n")
    with pytest.raises(InputError, match="1 of 2 images in .*t.csv are unusable, such as set/none.npy: No such file"):
        load_images(tmp_path / "t.csv", cache=tmp_path / "cache")
    np.save(tmp_path / "stack.npy", _RNG.normal(size=(3, 1, 8, 8)))
    (tmp_path / "t.csv").write_text("file,z\nstack.npy#000007,1\n")
    with pytest.raises(InputError, match="none of the images that .*t.csv lists is in its files"):
        load_images(tmp_path / "t.csv", cache=tmp_path / "cache")


def test_the_table_of_a_folder_gives_labels_and_targets(tmp_path, caplog):
    (tmp_path / "set").mkdir()
    for i in range(3):
        np.save(tmp_path / "set" / f"{i}.npy", _RNG.normal(size=(8, 8)))
    (tmp_path / "set" / "targets.csv").write_text(
        "file,label,part\n0.npy,x,Training\n1.npy,y,Test\n2.npy,x,\n9.npy,,\n"
    )
    caplog.set_level(logging.INFO)
    loaded = load_images(tmp_path / "set", cache=tmp_path / "cache")
    assert (loaded.labels.tolist(), loaded.classes) == ([0, 1, 0], ("x", "y"))
    assert loaded.held_out.tolist() == [False, True, False]
    assert f"targets.csv: 1 of 4 rows are about no image of {tmp_path}/set, such as 9.npy" in caplog.text
    (tmp_path / "other.csv").write_text("file,z\n0.npy,1\n1.npy,2\n2.npy,3\n")
    loaded = load_images(tmp_path / "set", cache=tmp_path / "cache", table=tmp_path / "other.csv")
    assert loaded.labels is None
    assert loaded.targets["z"].tolist() == [1, 2, 3]
    assert len(list((tmp_path / "cache").iterdir())) == 1  # a table changes no pixel
