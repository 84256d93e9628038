"""Seeing, noise, sky and flux: as strong and as often as asked, and nothing else."""

import numpy as np
import pytest
import torch

from ssl_lens.views.photometry import Effect, Photometry
from ssl_lens.views.policy import Sky, ViewKind
from ssl_lens.views.randomness import image_keys

OFF = Effect(0.0, 0.0, 0.0)
KINDS = [ViewKind.FIRST_GLOBAL, ViewKind.OTHER_GLOBAL]
KEYS = image_keys(0, 0, torch.arange(2000)).view(2, 1000)


def only(**effects: Effect) -> Photometry:
    return Photometry(**{"flux_scale": OFF, "psf_sigma_px": OFF, "sky_offset": OFF, "noise_ratio": OFF} | effects)


def sky(level: float = 0.0, noise: float = 1.0, channels: int = 1) -> Sky:
    return Sky(torch.full((channels,), level), torch.full((2, 1000, channels), noise))


def views(size: int = 16, channels: int = 1) -> torch.Tensor:
    return torch.randn(2, 1000, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_no_effects_change_nothing():
    assert torch.equal(only()(views(), KEYS, KINDS, sky(3.0)), views())


def test_noise_is_that_of_each_view_and_channel():
    own = 0.1 * torch.arange(1, 6001).view(2, 1000, 3)
    noisy = only(noise_ratio=Effect(0.5, 0.5, 1.0))
    added = noisy(views(channels=3), KEYS, KINDS, Sky(torch.zeros(3), own)) - views(channels=3)
    assert ((added.std((3, 4)) / own).mean((0, 1)) - 0.5).abs().max() < 0.01
    assert (added.std((3, 4)) / own - 0.5).abs().max() < 0.15
    assert abs((added / own[..., None, None]).mean()) < 1e-3


def test_noise_ratios_fill_the_range_with_the_probability():
    noisy = only(noise_ratio=Effect(0.1, 0.3, 0.25))
    std = (noisy(views(), KEYS, KINDS, sky(noise=2.0)) - views()).std((2, 3, 4)).flatten() / 2
    applied = std[std > 0]
    assert abs(len(applied) / 2000 - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert 0.08 < applied.min() < 0.13
    assert 0.27 < applied.max() < 0.34
    assert abs(applied.mean() - 0.2) < 0.02


def test_a_wider_psf_smooths_light_and_not_the_noise_that_is_added():
    seen = only(psf_sigma_px=Effect(1.0, 1.0, 1.0), noise_ratio=Effect(0.5, 0.5, 1.0))
    assert seen(torch.zeros(2, 1000, 1, 16, 16), KEYS, KINDS, sky()).std().item() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("flux", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("sigma", [0.02, 0.8])
def test_noise_in_flux_is_what_asinh_makes_of_it(flux, sigma):
    """The deviation of asinh(flux + sigma z), z normal, by Gauss-Hermite quadrature: sigma / sqrt(1 + flux^2) if small.

    On stretched pixels, a bright arc had as much of it as the sky.
    """
    noisy = only(noise_ratio=Effect(sigma, sigma, 1.0))
    stretched = noisy(torch.full((2, 1000, 1, 16, 16), flux), KEYS, KINDS, sky()).asinh().double()
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    values, weights = np.arcsinh(flux + sigma * nodes), weights / weights.sum()
    mean = (weights * values).sum()
    std = (weights * (values - mean) ** 2).sum() ** 0.5
    assert stretched.mean().item() == pytest.approx(mean, abs=5 * std / 512_000**0.5)
    assert stretched.std().item() == pytest.approx(std, rel=0.005)
    if sigma == 0.02:
        assert std == pytest.approx(sigma / (1 + flux**2) ** 0.5, rel=1e-3)


def test_the_sky_moves_by_its_offset_and_sources_keep_their_flux():
    """A source of 50 on a sky of 1000 with a noise of 4: an offset moves both, a factor the source alone."""
    still = torch.full((2, 1000, 1, 9, 9), 1000.0)
    still[..., 4, 4] += 50
    moved = only(sky_offset=Effect(-0.5, 0.5, 1.0))(still.clone(), KEYS, KINDS, sky(1000.0, 4.0))
    offset = moved[..., 0, 0, 0] - 1000
    assert offset.min() == pytest.approx(-2, abs=0.01)
    assert offset.max() == pytest.approx(2, abs=0.01)
    torch.testing.assert_close(moved - offset[..., None, None, None], still, rtol=0, atol=1e-3)
    scaled = only(flux_scale=Effect(0.5, 2.0, 1.0))(still.clone(), KEYS, KINDS, sky(1000.0, 4.0))
    torch.testing.assert_close(scaled[..., 0, 0], still[..., 0, 0], rtol=0, atol=1e-3)
    source = scaled[..., 4, 4] - 1000
    assert source.min() == pytest.approx(25, abs=0.1)
    assert source.max() == pytest.approx(100, abs=0.1)


def test_flux_and_sky_are_a_factor_and_an_offset_per_view():
    changed = only(flux_scale=Effect(0.5, 2.0, 0.5), sky_offset=Effect(-1.0, 1.0, 0.5))(views(), KEYS, KINDS, sky())
    before, after = views().flatten(2), changed.flatten(2)
    scale = after.std(2) / before.std(2)
    offset = after.mean(2) - scale * before.mean(2)
    assert torch.allclose(after, scale[..., None] * before + offset[..., None], atol=1e-4)
    for values, neutral, low, high in ((scale, 1.0, 0.5, 2.0), (offset, 0.0, -1.0, 1.0)):
        untouched = (values - neutral).abs() < 1e-5
        assert abs(untouched.float().mean() - 0.5) < 0.06
        assert low - 1e-5 <= values.min() < low + 0.02
        assert high - 0.02 < values.max() <= high + 1e-5


def test_psf_blur_keeps_flux_and_touches_its_share_of_views():
    star = torch.zeros(2, 1000, 1, 17, 17)
    star[..., 8, 8] = 1.0
    blurred = only(psf_sigma_px=Effect(0.5, 1.0, 0.5))(star, KEYS, KINDS, sky())
    assert torch.allclose(blurred.sum((2, 3, 4)), torch.ones(2, 1000), atol=1e-5)
    assert abs((blurred[..., 0, 8, 8] < 1).float().mean() - 0.5) < 0.06
