import json
import math

import numpy as np
import pytest
import torch

from ssl_lens.data.pixels.stretch import Stretch, fit_stretch
from ssl_lens.errors import InputError

KINDS = ["none", "asinh", "log", "percentile", "zscale"]
RAMP = np.arange(1001.0).reshape(1, 1, 7, 143)  # 0 to 1000, each once
RNG = np.random.default_rng(0)


def _apply(stretch: Stretch, *pixels: float) -> list[float]:
    return stretch(torch.tensor(pixels).view(1, 1, 1, -1)).flatten().tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [-3.0, 2.0, 4.0, 6.0, 20.0]),
        ("asinh", [math.asinh(u) for u in (-1.25, 0.0, 0.5, 1.0, 4.5)]),
        ("log", [math.log1p(1000 * u) / math.log(1001) for u in (0.0, 0.0, 0.5, 1.0, 4.5)]),
        ("percentile", [0.0, 0.0, 0.5, 1.0, 1.0]),
        ("zscale", [0.0, 0.0, 0.5, 1.0, 1.0]),
    ],
)
def test_closed_forms(kind, expected):
    assert _apply(Stretch(kind, [2.0], [4.0]), -3.0, 2.0, 4.0, 6.0, 20.0) == pytest.approx(expected, rel=1e-6)


def test_the_quick_asinh_is_exact_and_leaves_gradients_to_torch():
    values = torch.tensor([0.0, -0.0, 1e-30, -1e-8, -0.3, 2.0, -700.0, 1e30, -1e37])
    values = torch.cat([values, torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 30]).view(1, 1, 1, -1)
    stretch = Stretch("asinh", [0.0], [1.0])
    exact = values.double().asinh()
    assert ((stretch(values) - exact).abs() <= 1.3e-7 * exact.abs()).all()
    leaf = values[..., :10].clone().requires_grad_()
    stretch(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad.double(), 1 / torch.hypot(leaf.detach().double(), torch.ones(())))


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_is_one_within_the_range(kind):
    stretch = Stretch(kind, [0.0, 0.0], [1.0, 1.0]) if kind == "none" else Stretch(kind, [2e-12, -1.0], [4e-12, 30.0])
    inside = torch.rand(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stretch(stretch.inverse(inside)), inside, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "low", "scale"),
    [("none", 0, 1), ("asinh", 0, 1.4826 * 250), ("log", 5, 990), ("percentile", 5, 990), ("zscale", 0, 1000)],
)
def test_limits_of_a_ramp(kind, low, scale):
    """The median of 0..1000 is 500, its median absolute deviation 250; zscale takes four times the ramp, cut to it."""
    fitted = fit_stretch(kind, "per_band", RAMP).config()
    assert fitted == {"kind": kind, "low": [pytest.approx(low)], "scale": [pytest.approx(scale)]}


def test_zscale_cuts_off_what_outshines_the_sky():
    """On Gaussian sky IRAF's line through the sorted pixels, steepened by 1 / contrast = 4, spans some 13 sigma."""
    pixels = RNG.normal(3, 0.1, (40, 1, 50, 50))
    pixels[:, :, :5, :5] = 1000
    fitted = fit_stretch("zscale", "per_band", pixels).config()
    (low,), (scale,) = fitted["low"], fitted["scale"]
    assert 2.4 < low < 2.8
    assert 3.2 < low + scale < 4.0


def test_softening_is_the_noise_where_sky_fills_the_image():
    images = RNG.normal(0, 0.01, size=(64, 1, 32, 32))
    images[:, :, 12:18, 12:18] += 5.0
    assert fit_stretch("asinh", "per_band", images).config()["scale"][0] == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_joint_is_the_fit_to_all_bands_as_one(kind):
    images = RNG.normal([[[[1.0]], [[5.0]]]], [[[[1.0]], [[3.0]]]], (20, 2, 16, 16))
    joint = fit_stretch(kind, "joint", images).config()
    assert joint == {
        name: value if name == "kind" else value * 2
        for name, value in fit_stretch(kind, "per_band", images.reshape(20, 1, 32, 16)).config().items()
    }
    bands = fit_stretch(kind, "per_band", images).config()
    for channel in (0, 1):
        alone = fit_stretch(kind, "per_band", images[:, [channel]]).config()
        assert (bands["low"][channel], bands["scale"][channel]) == (*alone["low"], *alone["scale"])
    assert (bands["scale"][0] == bands["scale"][1]) == (kind == "none")


@pytest.mark.parametrize("kind", ["log", "percentile", "zscale"])
@pytest.mark.parametrize("sky", [0.0, 0.1, -7e-12])
def test_limits_without_width_become_the_extremes(kind, sky):
    """More than 99 % of the pixels are equal."""
    pixels = np.full((4, 1, 50, 50), sky, np.float32)
    pixels[0, 0, 0, :5] = sky + np.array([-1, 1, 2, 3, 4])
    fitted = fit_stretch(kind, "per_band", pixels).config()
    assert (fitted["low"][0], fitted["scale"][0]) == (pytest.approx(sky - 1), pytest.approx(5))


def test_asinh_of_mostly_equal_pixels_has_the_deviation_of_the_others():
    pixels = np.zeros((1, 1, 10, 10))
    pixels[0, 0, 0] = 10
    assert fit_stretch("asinh", "per_band", pixels).config()["scale"] == [pytest.approx(14.826)]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_constant_channel_is_one_line(kind):
    alpha = np.concatenate([RAMP, np.full_like(RAMP, 0.1)], axis=1)
    with pytest.raises(InputError, match=r"channel 1 of the images is constant \(0.1\); remove it from the files$"):
        fit_stretch(kind, "per_band", alpha)
    assert fit_stretch(kind, "joint", alpha).config()["scale"][0] > 0
    with pytest.raises(InputError, match=r"channel 0 .* constant \(0.1\)"):
        fit_stretch(kind, "joint", alpha[:, 1:])


def test_an_unknown_stretch_names_those_there_are():
    message = "stretch='sqrt' is unknown; set it to none, asinh, log, percentile, zscale"
    with pytest.raises(InputError, match=message):
        Stretch("sqrt", [0.0], [1.0])
    with pytest.raises(InputError, match=message):
        fit_stretch("sqrt", "per_band", RAMP)


def test_zscale_looks_at_pixels_of_everywhere(monkeypatch):
    """Images whose columns differ, of a side that even steps would fall on again and again."""
    pixels = np.arange(100.0) + RNG.normal(0, 0.1, (400, 1, 100, 100))
    few, again, many = (_zscale_with(monkeypatch, samples, pixels) for samples in (200, 200, 100_000))
    assert few == again != many
    assert many == pytest.approx((0, 99), abs=1)


def _zscale_with(monkeypatch, samples: int, pixels: np.ndarray) -> tuple[float, float]:
    monkeypatch.setattr("ssl_lens.data.pixels.stretch.ZSCALE_SAMPLES", samples)
    fitted = fit_stretch("zscale", "per_band", pixels).config()
    return fitted["low"][0], fitted["scale"][0]


def test_limits_that_float32_cannot_tell_apart_have_no_width():
    pixels = np.where(RNG.random((1, 1, 50, 50)) < 0.5, 1, np.nextafter(np.float32(1), 2))
    pixels[0, 0, 0, :2] = -4, 6
    fitted = fit_stretch("percentile", "per_band", pixels).config()
    assert (fitted["low"], fitted["scale"]) == ([-4], [10])


def test_config_rebuilds_the_same_numbers_through_json():
    fitted = fit_stretch("asinh", "per_band", 1e-12 * RNG.normal(size=(8, 3, 9, 9)))
    rebuilt = Stretch(**json.loads(json.dumps(fitted.config())))
    assert torch.equal(rebuilt.scale, fitted.scale)
    assert rebuilt.config() == fitted.config()
    assert fitted.state_dict() == {}


def test_a_quiet_sky_in_whole_numbers_still_compresses_arcs():
    """Whether the median deviation of such a picture is 0 or a step hangs on the sample; the scale must not."""
    rng = np.random.default_rng(5)
    rows, columns = np.indices((64, 64)) - 31.5
    ring = 200 * np.exp(-((np.hypot(rows, columns) - 9) ** 2) / 4)
    for noise in (0.4, 0.6, 1.0, 2.0):
        picture = np.round(ring + 1 + noise * rng.normal(size=(30, 1, 64, 64))).clip(0, 255)
        (scale,) = fit_stretch("asinh", "per_band", picture).config()["scale"]
        assert 1 <= scale <= 4
    masked = rng.normal(size=(30, 1, 64, 64))
    masked[:, :, :40] = 0.0
    (scale,) = fit_stretch("asinh", "per_band", masked).config()["scale"]
    assert scale == pytest.approx(1, abs=0.02)
