"""Seeing, noise, sky and flux: as strong and as often as asked, and nothing else."""

import torch

from ssl_lens.views.photometry import Effect, Photometry, ViewKind
from ssl_lens.views.randomness import image_keys

OFF = Effect(0.0, 0.0, 0.0)
NOTHING = Photometry(flux_scale=OFF, psf_sigma_px=OFF, sky_offset=OFF, noise_std=OFF)
KINDS = [ViewKind.FIRST_GLOBAL, ViewKind.OTHER_GLOBAL]
KEYS = image_keys(0, 0, torch.arange(2000)).view(2, 1000)


def views(size: int = 16, channels: int = 1) -> torch.Tensor:
    return torch.randn(2, 1000, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_no_effects_change_nothing():
    assert torch.equal(NOTHING(views(), KEYS, KINDS), views())


def test_noise_has_the_std_asked_for():
    noisy = Photometry(flux_scale=OFF, psf_sigma_px=OFF, sky_offset=OFF, noise_std=Effect(0.2, 0.2, 1.0))
    added = noisy(views(channels=3), KEYS, KINDS) - views(channels=3)
    assert abs(added.std() - 0.2) < 1e-3
    assert abs(added.mean()) < 1e-3
    assert (added.std((2, 3, 4)) - 0.2).abs().max() < 0.04


def test_noise_stds_fill_the_range_with_the_probability():
    noisy = Photometry(flux_scale=OFF, psf_sigma_px=OFF, sky_offset=OFF, noise_std=Effect(0.1, 0.3, 0.25))
    std = (noisy(views(), KEYS, KINDS) - views()).std((2, 3, 4)).flatten()
    applied = std[std > 0]
    assert abs(len(applied) / 2000 - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert 0.08 < applied.min() < 0.13
    assert 0.27 < applied.max() < 0.34
    assert abs(applied.mean() - 0.2) < 0.02


def test_known_noise_is_that_of_each_image_and_channel():
    noisy = Photometry(OFF, OFF, OFF, noise_std=Effect(9.0, 9.0, 1.0), noise_ratio=Effect(0.5, 0.5, 1.0))
    own = 0.1 * torch.arange(1, 3001).view(1000, 3)
    added = noisy(views(channels=3), KEYS, KINDS, own) - views(channels=3)
    assert ((added.std((3, 4)) / own).mean((0, 1)) - 0.5).abs().max() < 0.01
    assert (added.std((3, 4)) / own - 0.5).abs().max() < 0.15


def test_flux_and_sky_are_a_factor_and_an_offset_per_view():
    changed = Photometry(
        flux_scale=Effect(0.5, 2.0, 0.5), psf_sigma_px=OFF, sky_offset=Effect(-1.0, 1.0, 0.5), noise_std=OFF
    )(views(), KEYS, KINDS)
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
    blurred = Photometry(flux_scale=OFF, psf_sigma_px=Effect(0.5, 1.0, 0.5), sky_offset=OFF, noise_std=OFF)(
        star, KEYS, KINDS
    )
    assert torch.allclose(blurred.sum((2, 3, 4)), torch.ones(2, 1000), atol=1e-5)
    assert abs((blurred[..., 0, 8, 8] < 1).float().mean() - 0.5) < 0.06
