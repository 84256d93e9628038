import json

import numpy as np
import pytest
import torch

from ssl_lens.data.preprocess import Preprocess, fit_preprocess, pixel_range
from ssl_lens.errors import InputError


def _images(count: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scale = np.arange(1, channels + 1, dtype=np.float64)[:, None, None]
    return (rng.normal(size=(count, channels, size, size)) * scale + 10 * scale).astype(np.float32)


def test_crop_and_bin_take_the_centre_and_the_mean():
    raw = torch.arange(64.0).view(1, 1, 8, 8)
    out = Preprocess(4, 2, "none", None, [0.0], [1.0])(raw)
    # Rows 2..5 and columns 2..5; the first block is (18 + 19 + 26 + 27) / 4.
    assert out.tolist() == [[[[22.5, 24.5], [38.5, 40.5]]]]
    odd = Preprocess(3, 1, "none", None, [0.0], [1.0])(torch.arange(25.0).view(1, 1, 5, 5))
    assert odd[0, 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]


def test_stretch_then_standardise_per_channel():
    raw = torch.tensor([[2.0, -30.0]]).view(1, 2, 1, 1)
    out = Preprocess(None, 1, "asinh", [0.5, 10.0], [1.0, -1.0], [2.0, 4.0])(raw)
    expected = [(np.arcsinh(4.0) - 1) / 2, (np.arcsinh(-3.0) + 1) / 4]
    np.testing.assert_allclose(out.flatten(), expected, rtol=1e-6)


def test_integer_pixels_are_taken():
    counts = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
    assert Preprocess(None, 1, "none", None, [127.5], [127.5])(counts).flatten().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("stretch", ["none", "asinh"])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e6])
def test_units_of_the_flux_do_not_matter(stretch, unit):
    images = _images(32, 2, 16)
    out = {}
    for scale in (1.0, unit):
        scaled = (images.astype(np.float64) * scale).astype(np.float32)
        fitted = fit_preprocess(scaled, center_crop=12, bin=2, stretch=stretch)
        out[scale] = fitted(torch.from_numpy(scaled))
    torch.testing.assert_close(out[unit], out[1.0], rtol=1e-5, atol=1e-5)
    assert out[unit].shape == (32, 2, 6, 6)


@pytest.mark.parametrize("stretch", ["none", "asinh"])
def test_fitted_images_have_mean_0_and_std_1_per_channel(stretch):
    images = _images(70, 3, 8)  # more than one chunk
    out = fit_preprocess(images, center_crop=None, bin=1, stretch=stretch)(torch.from_numpy(images)).double()
    torch.testing.assert_close(out.mean(dim=(0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), rtol=1e-5, atol=0)


def test_large_offset_leaves_the_scatter_exact():
    rng = np.random.default_rng(1)
    images = (1e6 + rng.integers(-8, 9, size=(40, 1, 8, 8))).astype(np.float32)
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="none")
    assert fitted.config()["std"][0] == pytest.approx(images.astype(np.float64).std(), rel=1e-12)


def test_softening_is_the_noise_where_sky_fills_the_image():
    rng = np.random.default_rng(2)
    images = rng.normal(0, 0.01, size=(64, 1, 32, 32)).astype(np.float32)
    images[:, :, 12:18, 12:18] += 5.0
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="asinh")
    assert fitted.config()["softening"][0] == pytest.approx(0.01, rel=0.05)


def test_limit_takes_an_even_spread_of_images():
    images = np.zeros((101, 1, 2, 2), dtype=np.float32)
    images[[0, 50, 100], :, 0] = 1.0
    images[[0, 50, 100]] += np.array([1, 2, 6], dtype=np.float32)[:, None, None, None]
    fitted = fit_preprocess(images, center_crop=None, bin=1, stretch="none", limit=3)
    assert fitted.config()["mean"][0] == pytest.approx(3.5)


def test_config_rebuilds_the_same_numbers_through_json():
    images = _images(16, 2, 8)
    fitted = fit_preprocess(images, center_crop=6, bin=3, stretch="asinh")
    rebuilt = Preprocess(**json.loads(json.dumps(fitted.config())))
    raw = torch.from_numpy(images)
    assert torch.equal(rebuilt(raw), fitted(raw))
    assert fitted.state_dict() == {}


def test_bad_sizes_channels_and_names_are_one_line():
    make = Preprocess(10, 4, "none", None, [0.0], [1.0])
    with pytest.raises(InputError, match=r"center_crop=10 exceeds the images of 8x9 px; .* 8 or less"):
        make.output_size(8, 9)
    with pytest.raises(InputError, match=r"bin=4 does not divide 10x10 px; .* such as 8"):
        make(torch.zeros(1, 1, 12, 12))
    with pytest.raises(InputError, match=r"\(1, 3, 12, 12\) given.*1-channel"):
        make(torch.zeros(1, 3, 12, 12))
    with pytest.raises(InputError, match="stretch='log' is unknown"):
        Preprocess(None, 1, "log", None, [0.0], [1.0])
    alpha = np.concatenate([_images(4, 1, 4), np.full((4, 1, 4, 4), 255, np.float32)], axis=1)
    with pytest.raises(InputError, match=r"channel 1 of the images is constant \(255\)"):
        fit_preprocess(alpha, center_crop=None, bin=1, stretch="none")


def test_the_range_is_that_of_the_prepared_pixels() -> None:
    images = np.random.default_rng(3).normal(5, 2, (300, 1, 8, 8)).astype(np.float32)
    preprocess = fit_preprocess(images, center_crop=None, bin=1, stretch="none")
    prepared = (images - images.mean()) / images.std()
    assert pixel_range(preprocess, images, limit=300) == pytest.approx((prepared.min(), prepared.max()), rel=1e-5)
    assert pixel_range(preprocess, images[:, :, 2:3], limit=1) == pytest.approx(
        (prepared[0, :, 2].min(), prepared[0, :, 2].max()), rel=1e-5
    )
