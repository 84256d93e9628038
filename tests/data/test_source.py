"""Whatever a path names gives the same interface, and the same images."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from shard_files import image, write_shards

from ssl_lens.data.batches import Plan
from ssl_lens.data.images import load_images, pack_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.source import ImageSource, open_source
from ssl_lens.errors import InputError

COUNT = 12


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """The same twelve images as a folder, a table, a pack, shards and a tar."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(COUNT):
        np.save(folder / f"{i:05d}.npy", image(i))
    (folder / "all.csv").write_text("".join(f"{line}\n" for line in ("file", *(f"{i:05d}.npy" for i in range(COUNT)))))
    pack_images(folder, tmp_path / "pack", policy=PixelPolicy(), layout="auto", table=None)
    write_shards(tmp_path / "one", (COUNT,))
    return {
        "folder": str(folder),
        "table": str(folder / "all.csv"),
        "pack": str(tmp_path / "pack"),
        "pattern": write_shards(tmp_path / "shards", (5, 7)),
        "tar": str(tmp_path / "one" / "0.tar"),
    }


@pytest.mark.parametrize("kind", ["folder", "table", "pack", "pattern", "tar"])
def test_every_kind_of_path_is_a_source(paths, kind):
    source: ImageSource = open_source(paths[kind], workers=0, shuffle_buffer=4)
    assert (len(source), source.shape, source.policy) == (COUNT, (1, 4, 4), PixelPolicy())
    assert len(source.names) == COUNT
    assert source.names[3].endswith("#000003") or source.names[3] == "00003.npy"
    assert source.listing().keys() in ({"names", "pixels"}, {"shards"})
    np.testing.assert_array_equal(np.sort(np.asarray(source.sample())[:, 0, 0, 0]), np.arange(COUNT))
    batches = source.batches(Plan(4, accumulate=2, seed=0, rank=0, world_size=1), torch.device("cpu"))
    assert batches.steps_per_epoch == 3
    seen = [part for step in range(3) for part in batches.at(step)]
    assert [raw.shape for raw, _ in seen] == [(2, 1, 4, 4)] * 6
    assert all(torch.equal(raw[:, 0, 0, 0], index.float()) for raw, index in seen)
    assert sorted(i for _, index in seen for i in index.tolist()) == list(range(COUNT))
    batches.close()


def test_held_out_and_excluded_images_are_left_out(paths, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = Path(paths["folder"])
    lines = [f"{i:05d}.npy,{'test' if i < 2 else 'train'}\n" for i in range(COUNT)]
    (folder / "targets.csv").write_text("file,split\n" + "".join(lines))
    (tmp_path / "names.txt").write_text("00005.npy\n")
    source = open_source(str(folder), exclude=tmp_path / "names.txt")
    assert source.names == tuple(f"{i:05d}.npy" for i in range(COUNT) if i not in (0, 1, 5))
    assert "2 images held out for tests are left out of pretraining" in caplog.text
    assert "names.txt: 1 images left out, 11 remain" in caplog.text


def test_images_may_be_held_out_and_excluded_at_once(paths, tmp_path):
    folder = Path(paths["folder"])
    (folder / "targets.csv").write_text("file,split\n00000.npy,test\n00001.npy,test\n00002.npy,train\n")
    for excluded in (["00000.npy"], ["00000.npy", "00001.npy"], ["00001.npy", "00005.npy"]):
        (tmp_path / "names.txt").write_text("\n".join(excluded))
        source = open_source(str(folder), exclude=tmp_path / "names.txt")
        assert set(source.names) == {f"{i:05d}.npy" for i in range(2, COUNT)} - set(excluded)


def test_shards_leave_nothing_out(paths, tmp_path):
    with pytest.raises(InputError, match="^exclude=names.txt cannot leave images out of shards, which are streamed; "):
        open_source(paths["pattern"], exclude=Path("names.txt"))


def test_channels_are_checked_by_all(paths):
    for path in paths.values():
        with pytest.raises(InputError, match=r"images of 1 channels, needed are 3; .*\(in_channels=1\)"):
            open_source(path, in_channels=3)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_arrays_for_tests_are_never_trained_on(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 20), ("val", 17), ("test", 18)):
        arrays[f"x_{part}"] = rng.normal(size=(count, 1, 8, 8)).astype(np.float32)
        arrays[f"y_{part}"] = np.arange(count) % 2
    (tmp_path / "set").mkdir()
    if kind == "npz":
        np.savez(tmp_path / "set" / "all.npz", **arrays)
    else:
        with h5py.File(tmp_path / "set" / "all.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array
    source = open_source(str(tmp_path / "set"))
    assert source.names == tuple(f"all.{kind}#train/{i:06d}" for i in range(20))
    np.testing.assert_array_equal(source.sample()[:], arrays["x_train"])
    images = load_images(tmp_path / "set")
    assert images.held_out.tolist() == [False] * 20 + [True] * 35
    assert images.classes == ("0", "1")
    np.testing.assert_array_equal(images.labels, np.concatenate([arrays[f"y_{p}"] for p in ("train", "val", "test")]))
