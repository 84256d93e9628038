"""How a map varies around the lens: known waves, and what turns leave alone."""

import math

import pytest
import torch

from ssl_lens.backbones.layers.angular import BANDS, NUMBERS, RINGS, angular_power


def angles(side: int) -> torch.Tensor:
    axis = torch.arange(side) - (side - 1) / 2
    return torch.atan2(-axis[:, None], axis)


@pytest.mark.parametrize(("band", "periods"), [(0, 1), (1, 2), (2, 3), (2, 4), (3, 6), (4, 10)])
def test_a_wave_of_m_periods_lies_in_its_band(band, periods):
    """3 cos(m phi + 1) has an amplitude of 3 / 2 on every circle that the pixels resolve, and a constant has none."""
    wave = 5 + 3 * torch.cos(periods * angles(128) + 1)[None, None]
    power = angular_power(wave).view(RINGS, len(BANDS))
    assert power[5:, band].tolist() == pytest.approx([1.5] * 5, rel=0.02)
    others = [other for other in range(len(BANDS)) if other != band]
    assert power[5:, others].max() < 0.05


def test_turns_and_flips_change_nothing_at_any_size():
    for height, width in ((56, 56), (57, 57), (13, 20)):
        maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        expected = angular_power(maps)
        assert expected.shape == (2, 3 * NUMBERS)
        for turned in (maps.rot90(1, (2, 3)), maps.rot90(2, (2, 3)), maps.flip(2), maps.flip(3), maps.mT):
            torch.testing.assert_close(angular_power(turned), expected, rtol=0, atol=1e-5)


def test_a_knot_on_a_ring_is_seen_at_its_radius_and_in_the_finest_bands():
    axis = torch.arange(64) - 31.5
    radius = torch.hypot(axis[:, None], axis)
    ring = torch.exp(-((radius - 16) ** 2) / 8)
    knot = 0.3 * torch.exp(-((axis[:, None] - 16) ** 2 + axis**2) / 4)
    smooth, knotted = (angular_power(image[None, None]).view(RINGS, len(BANDS)) for image in (ring, ring + knot))
    change = knotted - smooth
    circle = int(16 / 31.5 * RINGS)
    assert change.argmax() // len(BANDS) in (circle - 1, circle)
    assert change[circle, 3] > 20 * abs(change[circle + 3, 3])


def test_gradients_are_finite_where_nothing_varies():
    maps = torch.ones(1, 1, 20, 20, requires_grad=True)
    angular_power(maps).sum().backward()
    assert maps.grad.isfinite().all()
    assert math.isfinite(maps.grad.abs().max())
