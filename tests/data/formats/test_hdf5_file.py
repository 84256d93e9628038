import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest

from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_STACK = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype(np.float32)


def _images(path):
    return np.stack([sample.image for sample in read_images(path)])


def test_one_dataset_or_the_named_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("anything", data=_STACK.astype(">f8"), chunks=(4, 3, 16, 16), compression="gzip")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["group/images"] = _STACK
        file["group/labels"] = np.arange(20)
    np.testing.assert_array_equal(_images(tmp_path / "a.h5"), _STACK)
    np.testing.assert_array_equal(_images(tmp_path / "b.hdf5"), _STACK)


def test_which_dataset_is_the_image_must_be_clear(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = _STACK, _STACK
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_group("empty")
    with pytest.raises(
        UnusableImage, match=r"2 datasets in the file \(x, y\), and nothing says .* needed is one dataset"
    ):
        _images(tmp_path / "a.h5")
    with pytest.raises(UnusableImage, match="0 datasets in the file"):
        _images(tmp_path / "b.h5")


@pytest.mark.parametrize("place", ["image", "deep/image"])
@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "other file"])
def test_nothing_is_followed_out_of_the_file(tmp_path, kind, place):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["image"] = _STACK
    np.save(tmp_path / "secret.npy", _STACK)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if kind == "external link":
            file[place] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/image")
        elif kind == "soft link":
            file["data"] = _STACK
            file[place] = h5py.SoftLink("/data")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=_STACK.shape, dtype="f4")
            layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "image", shape=_STACK.shape)
            file.create_virtual_dataset(place, layout)
        else:
            outside = [(str(tmp_path / "secret.npy"), 128, _STACK.nbytes)]
            file.create_dataset(place, _STACK.shape, "f4", external=outside)
    match = r"link (deep|image); links are not followed|link image" if "link" in kind else "lies in other files"
    with pytest.raises(UnusableImage, match=match):
        _images(tmp_path / "a.h5")


@pytest.mark.parametrize(("shape", "chunks"), [((10**9, 64, 64), (1, 64, 64)), ((8, 8), (8192, 8192))])
def test_absurd_declared_sizes_are_refused_before_anything_is_read(tmp_path, shape, chunks):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", shape, "f4", chunks=chunks, maxshape=(None,) * len(shape))
    with pytest.raises(UnusableImage, match="HDF5 dataset image declares .* bytes in 0 stored ones"):
        _images(tmp_path / "a.h5")


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), h5py.vlen_dtype(np.float32), h5py.ref_dtype])
def test_strings_lists_and_references_are_not_images(tmp_path, dtype):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (8, 8), dtype)
    with pytest.raises(UnusableImage, match="type object, not real numbers"):
        _images(tmp_path / "a.h5")


def test_an_empty_dataset(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = h5py.Empty("f4")
    with pytest.raises(UnusableImage, match="dataset image is empty"):
        _images(tmp_path / "a.h5")


def test_many_threads_read_at_once(tmp_path):
    for i in range(24):
        with h5py.File(tmp_path / f"{i:02d}.h5", "w") as file:
            file.create_dataset("image", data=_STACK + i, compression="gzip")
    with ThreadPoolExecutor(8) as pool:
        for i, read in enumerate(pool.map(_images, sorted(tmp_path.iterdir()))):
            np.testing.assert_array_equal(read, _STACK + i)


def _with_chunk(path, change, **settings):
    """A file whose only chunk has `change` done to its bytes, and another size where they have."""
    with h5py.File(path, "w") as file:
        chunked = file.create_dataset("image", (8, 8), "u1", chunks=(8, 8), **settings)
        chunked.id.write_direct_chunk((0, 0), change)
    return path


def test_chunks_are_looked_at_before_hdf5_unpacks_them(tmp_path):
    """HDF5 unpacks to whatever a chunk holds, and reads before the start of one that is shorter than its checksum."""
    bomb = zlib.compress(bytes(70 << 20), 1)
    with pytest.raises(UnusableImage, match="^a chunk of HDF5 dataset image expands to more than its 68 bytes"):
        _images(_with_chunk(tmp_path / "a.h5", bomb, compression="gzip"))
    with pytest.raises(UnusableImage, match="^a chunk of HDF5 dataset image has 2 bytes, which should unpack to 64"):
        _images(_with_chunk(tmp_path / "b.h5", b"ab", fletcher32=True))
    with pytest.raises(UnusableImage, match="image is packed by HDF5 filter 6; pack it with gzip, lzf or szip"):
        _images(_with_chunk(tmp_path / "c.h5", b"a" * 64, scaleoffset=0))
