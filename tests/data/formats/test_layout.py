import numpy as np
import pytest

from ssl_lens.data.formats.layout import Pixels, array_pixels, samples_of
from ssl_lens.data.formats.sample import UnusableImage


def _images(array):
    return [sample.image for sample in samples_of(array_pixels(array))]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 10])
def test_layouts_of_one_image_become_channels_first(channels):
    image = np.random.default_rng(1).normal(size=(channels, 20, 24))
    for layout in (image, np.moveaxis(image, 0, 2), image[None], np.asfortranarray(image)):
        (read,) = _images(layout)
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, image.astype(np.float32))


def test_stacks_of_images():
    stack = np.random.default_rng(2).normal(size=(5, 3, 20, 24)).astype(np.float32)
    np.testing.assert_array_equal(np.stack(_images(stack)), stack)
    np.testing.assert_array_equal(np.stack(_images(np.moveaxis(stack, 1, 3))), stack)
    np.testing.assert_array_equal(np.stack(_images(stack[:, :1])), stack[:, :1])


def test_up_to_16_planes_are_channels_and_more_are_images():
    planes = np.random.default_rng(3).normal(size=(17, 40, 40)).astype(np.float32)
    assert [image.shape for image in _images(planes[:16])] == [(16, 40, 40)]
    np.testing.assert_array_equal(np.stack(_images(planes)), planes[:, None])


def test_a_stack_is_read_one_image_at_a_time():
    asked = []

    def read(i):
        asked.append(i)
        return np.full((8, 8), i)

    samples = samples_of(Pixels((10**9, 8, 8), np.dtype("u1"), read))
    assert [next(samples).image.max() for _ in range(3)] == [0, 1, 2]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "<i2", ">i4", "u8", "float16", ">f4", "<f8", ">f8"])
def test_any_real_type(dtype):
    image = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(dtype)
    (read,) = _images(image)
    assert read.dtype == np.float32
    assert read.dtype.isnative
    np.testing.assert_array_equal(read[0], image.astype(np.float32))


def test_what_float32_cannot_hold_is_infinite_and_a_tiny_flux_is_kept():
    (read,) = _images(np.array([[1e300, 1e-12], [1e-38, 0]]))
    assert read.ravel().tolist() == [np.inf, np.float32(1e-12), np.float32(1e-38), 0]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4), dtype=complex), "complex128, not real numbers"),
        (np.array([["a", "b"]]), "<U1, not real numbers"),
        (np.zeros(7), r"shape \(7,\) is not an image"),
        (np.zeros((0, 4)), r"shape \(0, 4\) is not an image"),
        (np.zeros((0, 3, 8, 8)), r"shape \(0, 3, 8, 8\) is not an image"),
        (np.zeros((2, 2, 3, 8, 8)), r"shape \(2, 2, 3, 8, 8\) is not an image"),
        (np.zeros((12, 16, 16)), r"no axis of shape \(12, 16, 16\) can be the channels"),
        (np.zeros((64, 64, 20)), r"no axis of shape \(64, 64, 20\) can be the channels"),
        (np.zeros((64, 64, 3, 1)), r"no axis of shape \(64, 64, 3, 1\) can be the channels"),
        (np.zeros((4, 20, 32, 32)), r"no axis of shape \(4, 20, 32, 32\) can be the channels"),
    ],
)
def test_arrays_that_are_not_images(array, reason):
    with pytest.raises(UnusableImage, match=reason):
        _images(array)
