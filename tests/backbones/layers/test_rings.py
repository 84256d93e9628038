import numpy as np
import pytest
import torch

from ssl_lens.backbones.layers.rings import ring_statistics


def test_rings_measure_a_radial_profile():
    """A map that is its own radius r; on 24 px the weights fall linearly within 2 px of the middles c = 1, 3, ... 11.

    The integral of r 2 pi r w(r) over that of 2 pi r w(r) is c + 2 / (3 c), and 20 / 13 where w is 1 inside c = 1.
    """
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
    radius = torch.hypot(x, y)[None, None]
    mean, std = ring_statistics(radius).view(2, 6)
    np.testing.assert_allclose(mean, [20 / 13, *(c + 2 / (3 * c) for c in (3, 5, 7, 9, 11))], atol=0.06)
    assert (std < 1).all()


def test_rings_of_a_constant_map_have_no_scatter():
    per_channel = ring_statistics(torch.full((1, 2, 7, 9), 3.0)).tolist()
    assert per_channel == [pytest.approx([3, 3, 3, 0, 0, 0] * 2, abs=1e-6)]


def test_a_small_scatter_on_a_large_value_is_measured():
    """In float32: a mean of squares less a square of means would leave 0, or rounding thirty times the scatter."""
    noise = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    small = ring_statistics(100 + 1e-2 * noise)[0, 6:]
    np.testing.assert_allclose(small, 1e-2 * ring_statistics(noise)[0, 6:], rtol=2e-3)


def test_rings_ignore_turns_and_flips_but_not_the_distance_from_the_centre():
    maps = torch.randn(2, 3, 13, 13, generator=torch.Generator().manual_seed(0))
    rings = ring_statistics(maps)
    assert rings.shape == (2, 2 * 6 * 3)
    for moved in (maps.rot90(1, (2, 3)), maps.rot90(2, (2, 3)), maps.flip(3)):
        np.testing.assert_allclose(ring_statistics(moved), rings, atol=1e-5)
    assert (ring_statistics(maps.roll(3, dims=3)) - rings).abs().max() > 0.1


@pytest.mark.parametrize(("side", "rings"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (12, 6), (40, 6)])
def test_small_maps_have_fewer_rings(side, rings):
    features = ring_statistics(torch.randn(1, 1, side, side))
    assert features.shape == (1, 2 * rings)
    assert features.isfinite().all()
