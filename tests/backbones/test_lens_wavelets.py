"""Wavelets in the frame of the lens: exact under quarter turns, and what their harmonics measure."""

import math

import pytest
import torch

from ssl_lens.backbones.lens_wavelets import LensWavelets, LensWaveletsOptions, morlets
from ssl_lens.errors import InputError
from ssl_lens.representation.pooling import pool_maps


def polar(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance and direction from the middle of an image, [side, side] each."""
    axis = torch.arange(side) - (side - 1) / 2
    return torch.hypot(axis[:, None], axis), torch.atan2(-axis[:, None], axis)


def ring(side: int, *, radius: float, turned: float = 0.0) -> torch.Tensor:
    """An Einstein ring of 2 px width [1, 1, side, side] with two knots, which lie in the direction `turned`."""
    distance, direction = polar(side)
    bright = 1 + 0.5 * torch.cos(2 * (direction - turned))
    return (bright * torch.exp(-((distance - radius) ** 2) / 8))[None, None]


def features(images: torch.Tensor, **options: int) -> torch.Tensor:
    with torch.no_grad():
        return pool_maps(LensWavelets(images.shape[1], LensWaveletsOptions(**options)).stages(images), "log_rings")


@pytest.mark.parametrize(("height", "width"), [(56, 56), (57, 57), (64, 64), (101, 101), (33, 50), (1, 1), (3, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_quarter_turns_and_flips_do_not_change_the_features(height, width, channels):
    images = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
    expected = features(images)
    for turned in (images.rot90(1, (2, 3)), images.rot90(2, (2, 3)), images.flip(2), images.flip(3), images.mT):
        assert (features(turned) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_maps_turn_with_the_image():
    network = LensWavelets(1)
    images = torch.randn(1, 1, 38, 51, generator=torch.Generator().manual_seed(0))
    for turned, plain in zip(network.stages(images.rot90(1, (2, 3))), network.stages(images), strict=True):
        torch.testing.assert_close(turned, plain.rot90(1, (2, 3)), rtol=0, atol=1e-5)


def test_a_turn_by_45_degrees_changes_little_next_to_another_ring():
    first = features(ring(64, radius=16))
    assert (features(ring(64, radius=16, turned=math.pi / 4)) - first).norm() / first.norm() < 0.05
    assert (features(ring(64, radius=20)) - first).norm() / first.norm() > 0.2


def test_a_ring_oscillates_along_the_radius_and_spokes_across_it():
    """Harmonic 1 is positive where the wave runs outwards from the centre, negative where it runs around it."""
    spokes = torch.cos(16 * polar(64)[1])[None, None]
    for image, sign in ((ring(64, radius=16), 1), (spokes, -1)):
        isotropic, radial = LensWavelets(1).stages(image)[0][0, 4:6, 31, 47]  # of octave 1, 16 px from the centre
        assert isotropic > 0
        assert sign * radial > 0.5 * isotropic


def test_the_isotropic_map_is_the_mean_modulus_of_the_wavelets():
    """Of octave 0, far from the border, by sums over the filter's pixels in float64."""
    images = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    filters = morlets(0).double()[:, 0].unflatten(0, (8, 2))
    reach = filters.shape[-1] // 2
    patch = images[0, 0, 16 - reach : 17 + reach, 12 - reach : 13 + reach].double()
    parts = (filters * patch).sum(dim=(2, 3))
    assert LensWavelets(1).stages(images)[0][0, 1, 16, 12].item() == pytest.approx(
        parts.square().sum(dim=1).sqrt().mean().item(), rel=1e-5
    )


def test_wavelets_see_neither_the_sky_nor_one_another():
    filters = morlets(1)
    assert filters.sum(dim=(1, 2, 3)).abs().max() < 1e-6
    assert filters.shape == (16, 1, 21, 21)
    quarter = filters.unflatten(0, (8, 2))
    torch.testing.assert_close(quarter[4, :, 0], quarter[0, :, 0].rot90(1, (1, 2)), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("side", "count"), [(56, 156), (48, 156), (150, 156), (32, 144)])
def test_features_of_a_band(side, count):
    images = torch.randn(2, 2, side, side)
    assert features(images).shape == (2, 2 * count)
    assert [maps.shape[1:] for maps in LensWavelets(2).stages(images)] == [
        (14, side, side),
        (6, -(-side // 2), -(-side // 2)),
        (6, -(-side // 4), -(-side // 4)),
    ]


@pytest.mark.parametrize("octaves", range(1, 7))
def test_octaves(octaves):
    network = LensWavelets(1, LensWaveletsOptions(octaves=octaves))
    maps = network.stages(torch.randn(1, 1, 40, 40))
    assert sum(each.shape[1] for each in maps) == 1 + 3 * octaves
    assert maps[-1].shape[1:] == (network.embed_dim, *network.map_size(40, 40))
    with pytest.raises(InputError, match="octaves=7 are wider than any cutout; use 6 or fewer"):
        LensWaveletsOptions(octaves=7)


def test_gradients_of_an_empty_image_are_finite():
    images = torch.zeros(1, 1, 40, 40, requires_grad=True)
    pool_maps(LensWavelets(1).stages(images), "log_rings").sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_bfloat16_does_not_break_the_symmetry():
    images = torch.randn(1, 1, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features(images), features(images.clone()))
        maps = LensWavelets(1).stages(images)
    assert all(each.dtype == torch.float32 for each in maps)
    torch.testing.assert_close(maps, LensWavelets(1).stages(images), rtol=0, atol=0)
