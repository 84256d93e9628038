import multiprocessing
import os
import pickle

import numpy as np
import pytest

from ssl_lens.data.pack.packed_images import PackedImages, subset
from ssl_lens.errors import InputError

_IMAGES = np.random.default_rng(0).normal(size=(37, 2, 5, 4)).astype(np.float32)


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "images.npy", _IMAGES)
    return tmp_path / "images.npy"


@pytest.mark.parametrize(
    "index",
    [
        3,
        -1,
        np.int64(7),
        slice(None),
        slice(30, 99),
        slice(20, 3, -3),
        slice(5, 5),
        np.array([4, 5, 6]),
        np.array([9, 2, 2, 36, -37]),
        np.array([], dtype=np.int64),
    ],
)
def test_indexing_is_that_of_an_array(path, index):
    images = PackedImages(path)
    assert (images.shape, images.ndim, images.dtype, len(images), images.nbytes) == (
        _IMAGES.shape,
        4,
        np.float32,
        37,
        _IMAGES.nbytes,
    )
    np.testing.assert_array_equal(images[index], _IMAGES[index])
    order = np.random.default_rng(1).permutation(37)
    np.testing.assert_array_equal(subset(images, order)[index], _IMAGES[order][index])


def test_a_subset_is_a_view_and_of_an_array_a_copy(path):
    part = subset(subset(PackedImages(path), np.arange(10, 20)), np.array([3, 0]))
    assert isinstance(part, PackedImages)
    np.testing.assert_array_equal(np.asarray(part), _IMAGES[[13, 10]])
    np.testing.assert_array_equal(list(part), _IMAGES[[13, 10]])
    np.testing.assert_array_equal(subset(_IMAGES, np.array([1])), _IMAGES[[1]])


@pytest.mark.parametrize("index", [37, -38, np.array([0, 37]), np.array([-38]), (0, 0), (slice(None), 0)])
def test_what_is_not_an_image(path, index):
    with pytest.raises(IndexError):
        PackedImages(path)[index]


def _sum(images):
    return float(images[np.array([1, 5])].sum())


def test_another_process_reads_the_same(path):
    part = PackedImages(path).subset(np.arange(20, 30))
    assert _sum(pickle.loads(pickle.dumps(part))) == _sum(part)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_sum, [part]) == [_sum(part)]


def test_files_are_closed_with_the_images(path):
    before = len(os.listdir("/proc/self/fd"))
    images = [PackedImages(path).subset(np.arange(3)) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) >= before + 50
    del images
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_that_are_not_packed_images(tmp_path, path):
    np.save(tmp_path / "doubles.npy", _IMAGES.astype(np.float64))
    np.save(tmp_path / "flat.npy", _IMAGES[0])
    np.save(tmp_path / "fortran.npy", np.asfortranarray(_IMAGES))
    (tmp_path / "cut.npy").write_bytes(path.read_bytes()[:-1])
    for name in ("doubles", "flat", "fortran", "cut"):
        with pytest.raises(InputError, match=rf"{name}.npy is not a whole array of float32 \[N, C, H, W\]; pack"):
            PackedImages(tmp_path / f"{name}.npy")
    (tmp_path / "text.npy").write_text("text")
    for name in ("text", "none"):
        with pytest.raises(InputError, match=rf"{name}.npy cannot be read .*; pack the images again"):
            PackedImages(tmp_path / f"{name}.npy")


def test_a_file_cut_while_open_is_an_error_not_a_crash(path):
    images = PackedImages(path)
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(images[0], _IMAGES[0])
    with pytest.raises(InputError, match="has become shorter since it was opened"):
        images[36]
