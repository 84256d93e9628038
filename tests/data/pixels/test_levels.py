"""Range and noise of the pixels of a set."""

import numpy as np
import pytest

from ssl_lens.data.pixels.levels import noise_of_images, noise_of_set, pixel_range
from ssl_lens.data.pixels.preprocess import fit_preprocess

STRETCHES = ["none", "asinh", "log", "percentile", "zscale"]


def test_the_range_is_that_of_the_prepared_pixels() -> None:
    images = np.random.default_rng(3).normal(5, 2, (300, 1, 8, 8)).astype(np.float32)
    preprocess = fit_preprocess(images, center_crop=None, bin=1, stretch="none")
    prepared = (images - images.mean()) / images.std()
    assert pixel_range(preprocess, images, limit=300) == pytest.approx((prepared.min(), prepared.max()), rel=1e-5)
    assert pixel_range(preprocess, images[:, :, 2:3], limit=1) == pytest.approx(
        (prepared[0, :, 2].min(), prepared[0, :, 2].max()), rel=1e-5
    )


def cutouts(count: int) -> np.ndarray:
    """A small bright source on skies of 20 and 300 with noises of 2 and 30: float32 [N, 2, 20, 20]."""
    images = np.random.default_rng(0).normal(size=(count, 2, 20, 20)) * [[[2.0]], [[30.0]]] + [[[20.0]], [[300.0]]]
    images[:, :, 8:12, 8:12] += 1000
    return images.astype(np.float32)


@pytest.mark.parametrize("stretch", STRETCHES)
@pytest.mark.parametrize("bands", ["per_band", "joint"])
def test_noise_is_measured_in_every_band(stretch, bands):
    images = cutouts(40)
    preprocess = fit_preprocess(images, center_crop=None, bin=2, stretch=stretch, bands=bands)
    noise = noise_of_set(preprocess, images) * preprocess.unit
    np.testing.assert_allclose(noise, [1, 15], rtol=0.15)  # half in the mean of 2 x 2 pixels


@pytest.mark.parametrize("stretch", STRETCHES)
def test_known_noise_is_binned_and_in_the_units_of_the_pixels(stretch):
    images = cutouts(8)
    preprocess = fit_preprocess(images, center_crop=None, bin=2, stretch=stretch)
    known = np.array([[2.0, 30.0], [4.0, np.nan], [6.0, 10.0]])
    noise = noise_of_images(preprocess, known) * preprocess.unit
    np.testing.assert_allclose(noise, [[1, 15], [2, 10], [3, 5]], rtol=1e-6)  # the middle of 30 and 10 for the unknown


def test_a_sky_without_any_scatter_has_that_of_the_set():
    images = np.zeros((1000, 1, 4, 4), np.float32)
    images[1] = np.arange(16).reshape(4, 4)  # not among the images that are looked at
    preprocess = fit_preprocess(images, center_crop=None, bin=1, stretch="none")
    assert noise_of_set(preprocess, images).tolist() == [1.0]
