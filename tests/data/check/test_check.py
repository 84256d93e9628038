import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_lens.cli import main as cli
from ssl_lens.data.check.check import NO_CLASS, check_images
from ssl_lens.data.check.duplicates import orientation_free_key
from ssl_lens.data.check.report import lines, write_check
from ssl_lens.data.folders import bands
from ssl_lens.data.images import load_images, pack_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)
_PLAIN = {"policy": PixelPolicy(), "layout": "auto", "table": None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Where the runs that are begun pack their images."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    """Six images of two classes in two parts."""
    for part in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / "set" / part / label).mkdir(parents=True)
            np.save(tmp_path / "set" / part / label / "0.npy", _RNG.normal(size=(2, 8, 9)).astype(">f4"))
    for i in (1, 2):
        np.save(tmp_path / "set" / "train" / "b" / f"{i}.npy", _RNG.integers(1, 99, (2, 8, 9)))
    return tmp_path / "set"


def test_counts_and_statistics(root):
    report = check_images(root, **_PLAIN)
    pixels = np.asarray(load_images(root, cache=root.parent / "cache").images, np.float64)
    assert report.accepted
    assert report.shapes == {(2, 8, 9): 6}
    assert report.stored == {"float32": 4, "int64": 2}
    assert report.classes == {"a": {"train": 1, "test": 1}, "b": {"train": 3, "test": 1}}
    assert (report.duplicates, report.leaks, report.problems, report.unusable) == ((), (), (), ())
    for i, band in enumerate(report.bands):
        of_band = pixels[:, i]
        np.testing.assert_allclose(band, (of_band.min(), of_band.max(), of_band.mean(), of_band.std()), rtol=1e-12)
    assert {name: len(images) for name, images in report.shown.items()} == {"a": 2, "b": 4}
    text = "\n".join(lines(report))
    assert "    1 b        3        1" in text
    assert text.endswith("training would accept this set: 4 images to train on")


def test_numbers_of_a_table_and_flagged_pixels(root):
    (root / "targets.csv").write_text("file,z\ntrain/a/0.npy,0.25\ntrain/b/0.npy,2\ntest/a/0.npy,\n")
    image = np.load(root / "train" / "a" / "0.npy")
    image[0, 0, 0] = np.nan
    image[1, 0, :3] = 100
    np.save(root / "train" / "a" / "0.npy", image)
    report = check_images(root, policy=PixelPolicy(mask_value=100), layout="auto", table=None)
    assert report.targets == {"z": (2, 0.25, 2)}
    assert report.flagged == (4, 1)
    assert report.suspects == {}
    image[1] *= 1e-9
    image[1, 0, :3] = 100
    np.save(root / "train" / "a" / "0.npy", image)
    report = check_images(root, **_PLAIN)
    assert (report.flagged, report.suspects) == ((1, 1), {100.0: 1})
    assert any("1 images have several pixels of exactly 100, " in line for line in lines(report))


@pytest.mark.parametrize("turned", [0, 1, 2, 3, 4, 5, 6, 7])
def test_duplicates_and_leaks_in_any_orientation(root, turned):
    image = np.load(root / "test" / "a" / "0.npy")
    copy = np.rot90(image[:, :, ::-1] if turned > 3 else image, turned % 4, (1, 2))
    assert orientation_free_key(copy) == orientation_free_key(image)
    if copy.shape != image.shape:
        return
    np.save(root / "train" / "b" / "9.npy", copy)
    report = check_images(root, **_PLAIN)
    assert report.duplicates == (("test/a/0.npy", "train/b/9.npy"),)
    assert report.leaks == (("train/b/9.npy", "test/a/0.npy"),)
    assert not report.accepted
    assert report.problems == ()


def test_what_differs_by_one_bit_is_not_a_duplicate():
    image = _RNG.normal(size=(1, 8, 8)).astype(np.float32)
    other = image.copy()
    other[0, 3, 4] = np.nextafter(other[0, 3, 4], np.float32(9))
    assert orientation_free_key(other) != orientation_free_key(image)


def test_leaks_from_a_split_and_from_another_set(tmp_path):
    images = _RNG.normal(size=(4, 8, 8))
    for i in range(4):
        for name in (f"one/{i}.npy", *([f"two/{9 - i}.npy"] if i == 3 else [])):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            np.save(tmp_path / name, images[i].T if "two" in name else images[i])
    np.save(tmp_path / "one" / "4.npy", images[0])
    assert check_images(tmp_path / "one", **_PLAIN).leaks == ()
    (tmp_path / "names.txt").write_text("0.npy\n")
    report = check_images(tmp_path / "one", **_PLAIN, exclude=tmp_path / "names.txt")
    assert report.leaks == (("4.npy", "0.npy"),)
    assert report.classes == {NO_CLASS: {"test": 1, "train": 4}}
    report = check_images(tmp_path / "one", **_PLAIN, against=tmp_path / "two")
    assert report.leaks == (("3.npy", f"{tmp_path}/two/6.npy"),)


def _spoilt(root: Path, kind: str) -> dict:
    match kind:
        case "unreadable":
            (root / "train" / "a" / "x.npy").write_bytes(b"no image")
        case "constant":
            np.save(root / "train" / "a" / "x.npy", np.ones((2, 8, 9)))
        case "sizes":
            np.save(root / "train" / "a" / "x.npy", _RNG.normal(size=(2, 9, 9)))
        case "channels":
            np.save(root / "train" / "a" / "x.npy", _RNG.normal(size=(3, 8, 9)))
        case "size":
            return {"policy": PixelPolicy(sizes="crop", size=(20, 20))}
        case "layout":
            return {"layout": "lens_finding"}
        case "shape":
            return {"layout": "model_iv"}
        case "cropped":
            np.save(root / "train" / "a" / "x.npy", _RNG.normal(size=(2, 9, 9)))
            return {"policy": PixelPolicy(sizes="crop")}
    return {}


@pytest.mark.parametrize("kind", ["unreadable", "constant", "sizes", "channels", "size", "layout", "shape", "cropped"])
def test_the_verdict_is_that_of_training(root, kind, capsys, monkeypatch):
    monkeypatch.chdir(root.parent)
    options = _PLAIN | _spoilt(root, kind)
    report = check_images(root, **options)
    assert report.accepted == (kind == "cropped")
    if report.accepted:
        assert len(load_images(root, cache=root.parent / "cache", **options)) == 7
    else:
        with pytest.raises(InputError) as refused:
            load_images(root, cache=root.parent / "cache", **options)
        assert str(refused.value) in report.problems
        assert "training would refuse this set" in list(lines(report))
    arguments = ["data", "check", str(root), "--layout", options["layout"], "--sizes", options["policy"].sizes]
    assert cli.main([*arguments, *(["--size", "20"] if kind == "size" else [])]) == (0 if kind == "cropped" else 1)
    assert Path("checks/set/check.json").is_file()


def test_a_pack_is_checked_too_and_damage_reported(root, tmp_path):
    pack_images(root, tmp_path / "pack", **_PLAIN)
    report = check_images(tmp_path / "pack", **_PLAIN)
    assert report.accepted
    assert report.classes == {"a": {"test": 1, "train": 1}, "b": {"test": 1, "train": 3}}
    (tmp_path / "t.csv").write_text("file,label,z\ntrain/a/0.npy,c,2\n")
    other = check_images(tmp_path / "pack", **_PLAIN | {"table": tmp_path / "t.csv"})
    assert (other.targets, other.classes["c"], other.problems) == ({"z": (1, 2, 2)}, {"train": 1}, ())
    refused = check_images(tmp_path / "pack", **_PLAIN | {"policy": PixelPolicy(mask_value=9)})
    assert [problem.split(" was ")[1] for problem in refused.problems] == [
        "packed with mask_value=None, but mask_value=9 is needed; pack the images again with this value"
    ]
    with (tmp_path / "pack" / "images.npy").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x07")
    damaged = check_images(tmp_path / "pack", **_PLAIN)
    assert (damaged.damages, damaged.problems, damaged.accepted) == (("train/b/2.npy",), (), False)
    assert list(lines(damaged))[-2:] == [
        f"{tmp_path}/pack: train/b/2.npy is no longer as it was packed; pack the images again",
        "training would accept this set: 4 images to train on, not all as they were packed",
    ]


def test_files_and_pictures(root, tmp_path):
    paths = write_check(check_images(root, **_PLAIN), tmp_path / "out")
    assert [path.name for path in paths] == ["check.json", "contact_sheet.png", "histograms.png"]
    record = json.loads(paths[0].read_text())
    assert (record["accepted"], record["usable"], record["classes"]["b"]["train"]) == (True, 6, 3)
    for path in paths[1:]:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


@pytest.mark.parametrize("scale", [1e-38, 1e-12, 1e30, 1e37])
def test_any_brightness_is_drawn(tmp_path, scale):
    """Also where one image is all there is, or all but one pixel are equal: bins need a width."""
    for i, count in enumerate((1, 2)):
        folder = tmp_path / f"set{i}"
        folder.mkdir()
        for j in range(count):
            image = np.full((8, 8), scale, np.float32)
            image[j] = 2 * scale
            np.save(folder / f"{j}.npy", image if i else image * _RNG.normal(size=(8, 8)).astype(np.float32))
        report = check_images(folder, **_PLAIN)
        assert report.accepted == (count == 2)  # of one image nothing can be learned
        assert len(write_check(report, tmp_path / f"out{i}")) == 3


def test_nothing_to_check(tmp_path, capsys):
    assert cli.main(["data", "check", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith(f"error: DIR={tmp_path}/none does not exist")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.npy").write_bytes(b"no image")
    report = check_images(tmp_path / "bad", **_PLAIN)
    assert [path.name for path in write_check(report, tmp_path / "out")] == ["check.json"]
    assert report.problems == (
        f"1 of 1 images in {tmp_path}/bad are unusable, such as {report.unusable[0]}; repair or remove them, since at "
        "most 1% are left out",
    )


def test_a_table_that_training_does_not_read(root, tmp_path):
    """What it holds out would be trained on."""
    (tmp_path / "t.csv").write_text("file,split\ntrain/a/0.npy,test\ntest/a/0.npy,train\n")
    report = check_images(root, **_PLAIN | {"table": tmp_path / "t.csv"})
    reason = "itself, as training reads the table in the folder alone, which does not call it test"
    assert (report.problems, report.leaks) == ((), (("train/a/0.npy", reason),))
    assert not report.accepted


def test_colours_and_rows_are_those_of_the_format(tmp_path, capsys):
    """A stripe in the first rows of the first channel: red at the top of a PNG, blue at the bottom of an array."""
    for kind, colour, at_the_top in (("png", 0, True), ("npy", 2, False)):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[:8, :, 0], pixels[30:34, 30:34, 1], pixels[50, 50, 2] = 255, 200, 9
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png") if kind == "png" else np.save(
                tmp_path / kind / f"{i}.npy", pixels.transpose(2, 0, 1).astype(np.float32)
            )
        for rgb, seen in ((None, colour), ((0, 0, 1), None)):
            arguments = [] if rgb is None else ["--rgb", *map(str, rgb)]
            out = tmp_path / f"{kind}-out"
            assert cli.main(["data", "check", str(tmp_path / kind), "--out", str(out), *arguments]) == 0
            with Image.open(out / "contact_sheet.png") as picture:
                drawn = np.asarray(picture.convert("RGB"))[:, : picture.width // 8].astype(int)
            stripe = [drawn[..., channel] > 200 for channel in range(3)]
            if seen is None:  # the first channel as red and green: yellow
                found = np.argwhere(stripe[0] & stripe[1] & (drawn[..., 2] < 50))
            else:
                found = np.argwhere(stripe[seen] & (drawn.sum(-1) - drawn[..., seen] < 100))
            black = np.argwhere((drawn < 30).all(-1) & (np.arange(len(drawn))[:, None] > 60))
            assert len(found) > 100
            assert (np.median(found[:, 0]) < np.median(black[:, 0])) == at_the_top
    capsys.readouterr()
    assert cli.main(["data", "check", str(tmp_path / "npy"), "--out", str(out), "--rgb", "0", "1", "3"]) == 2
    assert "error: --rgb=0 1 3 names a channel that the images do not have; give" in capsys.readouterr().err


def test_pictures_do_not_become_images(root, capsys, monkeypatch):
    monkeypatch.chdir(root)
    assert cli.main(["data", "check", "."]) == 2
    assert "checks/set lies in ., to whose images it would add; give another folder" in capsys.readouterr().err
    assert not (root / "checks").exists()


def test_names_for_tests_must_be_of_the_set(root, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("train/a/0.npy\nc/9.npy\n")
    arguments = ["data", "check", str(root), "--split", str(names), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    assert "refused: 1 of 2 names of the split are not in the image set, such as c/9.npy" in capsys.readouterr().out
    names.write_text("train/a/0.npy\n")
    assert cli.main(arguments) == 0
    assert "    0 a        0        2" in capsys.readouterr().out


def test_a_leak_is_in_the_last_word(root, tmp_path, capsys):
    np.save(root / "train" / "a" / "1.npy", np.load(root / "test" / "b" / "0.npy"))
    assert cli.main(["data", "check", str(root), "--out", str(tmp_path / "out")]) == 1
    out = capsys.readouterr().out
    assert "leaks from tests: 1\n  train/a/1.npy = test/b/0.npy\n" in out
    assert "accept this set: 5 images to train on, with images that are for tests among them\n" in out


def test_shards_are_not_folder(capsys):
    for address in ("lenses/{0..9}.tar", "https://host/lenses.tar"):
        assert cli.main(["data", "check", address]) == 2
        assert f"error: {address} is a pattern, URL or tar of shards" in capsys.readouterr().err


def test_pack_by_command(root, tmp_path, capsys):
    assert cli.main(["data", "pack", str(root), str(tmp_path / "pack")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/pack: 6 images, 0.0 MB\n"
    assert len(load_images(tmp_path / "pack")) == 6
    assert cli.main(["data", "pack", str(root), str(tmp_path / "pack")]) == 2
    assert "pack exists already; give a new folder" in capsys.readouterr().err


def test_sets_of_others(lens_data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flagged = ["--mask-value", "100"]
    for folder, options in (
        ("common_npy", ["--layout", "folders"]),
        ("lens_finding_npy", ["--layout", "lens_finding"]),
        ("slacs_fits", []),
        ("bologna_fits/space_based", flagged),
        ("bologna_fits/ground_based", flagged),
    ):
        assert cli.main(["data", "check", str(lens_data / folder), *options]) == 0
    out = capsys.readouterr().out
    assert "flagged pixels: 261 in 2 images" in out
    assert "exactly" not in out


@pytest.mark.parametrize("recipe", [False, True])
def test_every_file_is_read_once(root, monkeypatch, tmp_path, recipe):
    opened, read = [], bands.read_images
    monkeypatch.setattr(bands, "read_images", lambda path, choice: (opened.append(path), read(path, choice))[1])
    arguments = ["data", "check", str(root), "--out", str(tmp_path / "report")]
    arguments += ["--recipe", "esvit_micro", "data.in_channels=2"] if recipe else []
    cli.main(arguments)
    assert sorted(opened) == sorted(root.rglob("*.npy"))
    first = (tmp_path / "report" / "check.json").read_text()
    assert json.loads(first)["usable"] == 6
    cli.main(arguments)  # the pack does not say what lies in the files
    assert len(opened) == 12
    assert (tmp_path / "report" / "check.json").read_text() == first
    np.save(root / "train" / "a" / "1.npy", _RNG.normal(size=(2, 9, 9)))
    cli.main(arguments)
    record = json.loads((tmp_path / "report" / "check.json").read_text())
    assert {tuple(shape["shape"]): shape["images"] for shape in record["shapes"]} == {(2, 8, 9): 6, (2, 9, 9): 1}
    assert "mixes image shapes" in record["problems"][0]
