import io
import json
import logging
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
import tifffile
from astropy.io import fits

from ssl_lens.data.images import load_images
from ssl_lens.data.pack import packer as packing
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_files_of_many_images_of_every_format(root, cache):
    stack = _RNG.normal(size=(20, 16, 16)).astype(np.float32)
    for label in ("lens", "none"):
        (root / label).mkdir()
    np.save(root / "lens" / "a.npy", stack[:, None])
    np.savez(root / "lens" / "b.npz", images=stack)
    with h5py.File(root / "lens" / "c.h5", "w") as file:
        file["images"] = stack
    fits.PrimaryHDU(stack).writeto(root / "none" / "d.fits")
    tifffile.imwrite(root / "none" / "e.tif", stack, photometric="minisblack")
    np.save(root / "none" / "f.npy", stack[0])
    loaded = load_images(root, cache=cache)
    assert loaded.images.shape == (101, 1, 16, 16)
    assert loaded.names[12] == "lens/a.npy#000012"
    assert loaded.names[60] == "none/d.fits#000000"
    assert loaded.names[-1] == "none/f.npy"
    assert np.bincount(loaded.labels).tolist() == [60, 41]
    for i in range(5):
        np.testing.assert_array_equal(loaded.images[20 * i : 20 * i + 20][:, 0], stack)


def test_a_stack_is_packed_in_bounded_memory(root, cache):
    np.save(root / "a.npy", _RNG.normal(size=(1500, 1, 64, 64)))  # 49 MB
    tracemalloc.start()
    loaded = load_images(root, cache=cache)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(loaded) == 1500
    assert peak < 5e6


def test_what_lies_before_the_damage_is_kept(root, cache):
    stack = _RNG.normal(size=(200, 1, 16, 16)).astype(np.float32)
    file = io.BytesIO()
    np.save(file, stack)
    with zipfile.ZipFile(root / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", file.getvalue()[: -stack[0].nbytes // 2])
        info = archive.infolist()[0]
    assert info.file_size < len(file.getvalue())
    loaded_bad = root.parent / "bad.tsv"
    with pytest.raises(InputError, match="1 of 1 images"):  # a file that declares more than it has is refused whole
        load_images(root, cache=cache, quarantine=loaded_bad)
    (root / "a.npz").unlink()
    stack[150] = 7
    np.save(root / "a.npy", stack)
    loaded = load_images(root, cache=cache, quarantine=loaded_bad)
    assert len(loaded) == 199
    assert loaded_bad.read_text() == "a.npy#000150\tconstant: every pixel is 7\n"


def test_masses_become_targets(root, cache):
    for i in range(3):
        array = np.empty(2, dtype=object)
        array[0], array[1] = _RNG.normal(size=(16, 16)), 10.0 ** (-22 - i)
        (root / "axion").mkdir(exist_ok=True)
        np.save(root / "axion" / f"{i}.npy", array, allow_pickle=True)
    (root / "a_no_sub").mkdir()
    np.save(root / "a_no_sub" / "0.npy", _RNG.normal(size=(16, 16)))
    for _ in range(2):  # freshly packed, then from the cache
        loaded = load_images(root, cache=cache)
        assert list(loaded.targets) == ["axion_mass_ev"]
        np.testing.assert_array_equal(loaded.targets["axion_mass_ev"], [np.nan, 1e-22, 1e-23, 1e-24])
    assert loaded.subset(np.array([2, 0])).targets["axion_mass_ev"][0] == 1e-23


def test_flagged_pixels_are_filled_and_reported_each_time(root, cache, caplog):
    caplog.set_level(logging.INFO)
    for i in range(4):
        image = _RNG.normal(size=(16, 16))
        image[0, :i] = (100, np.nan, np.inf)[i % 3]
        np.save(root / f"{i}.npy", image)
    for _ in range(2):
        caplog.clear()
        loaded = load_images(root, cache=cache, policy=PixelPolicy(mask_value=100))
        assert abs(np.asarray(loaded.images)).max() < 10
        (message,) = [message for message in caplog.messages if "flagged pixels of" in message]
        assert message.endswith("6 flagged pixels of 3 images filled with their channel's median")
    assert np.max(load_images(root, cache=cache).images) == 100  # another policy is another pack
    with pytest.raises(InputError, match="3 of 4 images .* unusable"):
        load_images(root, cache=cache, policy=PixelPolicy(mask_value=100, max_masked=0.0))


@pytest.mark.parametrize(
    ("sizes", "size", "shape"),
    [("crop", None, (8, 9)), ("pad", None, (12, 14)), ("crop", (6, 7), (6, 7)), ("pad", (15, 16), (15, 16))],
)
def test_unequal_sizes_by_policy(root, cache, sizes, size, shape):
    images = [_RNG.normal(size=(2, *of)).astype(np.float32) for of in ((10, 12), (8, 14), (12, 9), (10, 12))]
    for i, image in enumerate(images):
        np.save(root / f"{i}.npy", image)
    loaded = load_images(root, cache=cache, policy=PixelPolicy(sizes=sizes, size=size))
    assert loaded.images.shape == (4, 2, *shape)
    assert loaded.images.dtype == np.float32
    for packed, image in zip(loaded.images, images, strict=True):
        height, width = min(shape[0], image.shape[1]), min(shape[1], image.shape[2])
        centre = [packed, image]
        for i, array in enumerate(centre):
            top, left = (array.shape[1] - height) // 2, (array.shape[2] - width) // 2
            centre[i] = array[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(*centre)
    files = sorted(path.name for path in next(cache.iterdir()).iterdir())
    assert files == ["images.csv", "images.npy", "images.sha256", "manifest.json"]


def test_sizes_that_cannot_be_made(root, cache):
    np.save(root / "a.npy", _RNG.normal(size=(8, 9)))
    np.save(root / "b.npy", _RNG.normal(size=(9, 9)))
    with pytest.raises(
        InputError, match=r"1 of \(1, 8, 9\) \(a.npy\), 1 of \(1, 9, 9\) .* or set sizes=crop or sizes=pad"
    ):
        load_images(root, cache=cache)
    with pytest.raises(InputError, match="such as a.npy: 8x9 pixels but size=9x9 to crop to; give a smaller size"):
        load_images(root, cache=cache, policy=PixelPolicy(sizes="crop", size=(9, 9)))
    with pytest.raises(InputError, match="2 of 2 .* pixels but size=9x8 to pad to; give a larger size"):
        load_images(root, cache=cache, policy=PixelPolicy(sizes="pad", size=(9, 8)))
    np.save(root / "c.npy", _RNG.normal(size=(3, 9, 9)))
    with pytest.raises(InputError, match="give images of the same number of channels"):
        load_images(root, cache=cache, policy=PixelPolicy(sizes="crop"))
    assert all(path.name.startswith("packed-") for path in cache.iterdir())


@pytest.mark.parametrize("sizes", ["refuse", "pad"])
def test_a_disk_that_fills_leaves_no_pack(root, cache, monkeypatch, sizes):
    for i in range(20):
        width = 17 if sizes == "pad" and i % 2 else 16
        np.save(root / f"{i:02d}.npy", _RNG.normal(size=(16, width)))
    real = packing.Path.open

    class Full(io.FileIO):
        def write(self, data):
            if self.tell() + len(memoryview(data).cast("B")) > 15_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    def opened(path, mode="r", *arguments):
        return Full(path, "w") if mode == "wb" else real(path, mode, *arguments)

    monkeypatch.setattr(packing.Path, "open", opened)
    with pytest.raises(InputError, match="cannot pack .*: No space left on device; set SSL_LENS_CACHE"):
        load_images(root, cache=cache, policy=PixelPolicy(sizes=sizes))
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    assert len(load_images(root, cache=cache, policy=PixelPolicy(sizes=sizes))) == 20


def test_a_file_without_permission_is_left_out(root, cache, no_override):
    for i in range(120):
        np.save(root / f"{i:03d}.npy", _RNG.normal(size=(4, 4)))
    (root / "007.npy").chmod(0)
    loaded = load_images(root, cache=cache, quarantine=root.parent / "bad.tsv")
    assert len(loaded) == 119
    assert (root.parent / "bad.tsv").read_text() == "007.npy\tPermission denied\n"


def test_two_processes_pack_the_same_folder_at_once(root, cache, tmp_path):
    images = _RNG.normal(size=(300, 1, 16, 16)).astype(np.float32)
    for i, image in enumerate(images):
        np.save(root / f"{i:03d}.npy", image)
    script = (
        "import sys, time; from pathlib import Path; from ssl_lens.data.images import load_images\n"
        "here, other, root, cache = map(Path, sys.argv[1:])\n"
        "here.touch()\n"
        "while not other.exists(): time.sleep(0.001)\n"
        "print(load_images(root, cache=cache).images[:].sum())"
    )
    flags = [tmp_path / "first", tmp_path / "second"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, pair), str(root), str(cache)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair in (flags, flags[::-1])
    ]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert [path.name[:7] for path in cache.iterdir()] == ["packed-"]
    np.testing.assert_array_equal(load_images(root, cache=cache).images, images)


def test_an_archive_gives_names_and_labels_and_what_is_damaged_in_it(root, cache, tmp_path):
    images = _RNG.normal(size=(120, 1, 8, 8)).astype(np.float32)
    with tarfile.open(root / "shard.tar", "w") as tar:

        def add(name, data):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        for i, image in enumerate(images):
            file = io.BytesIO()
            np.save(file, image)
            add(f"night/{i:03d}.npy", file.getvalue() if i != 7 else b"no image")
            add(f"night/{i:03d}.json", json.dumps({"label": f"c{i % 2}", "z": i / 8}).encode())
    loaded = load_images(root, cache=cache, quarantine=tmp_path / "bad.tsv")
    assert loaded.names[:2] == ("shard.tar#night/000", "shard.tar#night/001")
    assert (len(loaded), loaded.classes) == (119, ("c0", "c1"))
    assert loaded.labels.tolist() == [i % 2 for i in range(120) if i != 7]
    np.testing.assert_array_equal(loaded.targets["z"], [i / 8 for i in range(120) if i != 7])
    np.testing.assert_array_equal(loaded.images, np.delete(images, 7, axis=0))
    assert (tmp_path / "bad.tsv").read_text().startswith("shard.tar#night/007\t")


def test_archives_without_labels_have_no_classes(root, cache):
    for name in ("000.tar", "001.tar"):
        with tarfile.open(root / name, "w") as tar:
            file = io.BytesIO()
            np.save(file, _RNG.normal(size=(8, 8)))
            info = tarfile.TarInfo("object/x.npy")
            info.size = len(file.getvalue())
            tar.addfile(info, io.BytesIO(file.getvalue()))
    loaded = load_images(root, cache=cache)
    assert (loaded.names, loaded.labels) == (("000.tar#object/x", "001.tar#object/x"), None)
