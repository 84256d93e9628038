"""Where views look: native scale and whole rings for lenses, the reference's rectangles for ImageNet's policy."""

import math

import pytest
import torch

from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import resample
from ssl_lens.views.randomness import image_keys

KEYS = image_keys(0, 0, torch.arange(4000))[:, None]


def corners(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Where the outer corners of a crop lie in the image, px from its centre: [..., 2, 3] -> [..., 2, 4]."""
    half = size / 2
    view = torch.tensor([[-half, half, -half, half], [-half, -half, half, half], [1.0, 1.0, 1.0, 1.0]])
    return maps @ view


def ring(size: int, radius_px: float) -> torch.Tensor:
    """A Gaussian ring, standard deviation 1.5 px, around the image's centre, [1, 1, size, size]."""
    position = torch.arange(size) - (size - 1) / 2
    distance = torch.hypot(position[:, None], position)
    return torch.exp(-0.5 * ((distance - radius_px) / 1.5) ** 2)[None, None]


def test_lens_safe_keeps_the_pixel_scale_and_mirrors_half():
    for maps in (LensSafe().global_maps(KEYS, 64, (64, 64)), LensSafe().local_maps(KEYS, 32, (64, 64))):
        linear = maps[..., :2]
        assert torch.allclose(linear @ linear.mT, torch.eye(2).expand_as(linear), atol=1e-6)
        assert abs((torch.det(linear) < 0).float().mean() - 0.5) < 5 * 0.5 / len(KEYS) ** 0.5


@pytest.mark.parametrize(
    "maps",
    [LensSafe().global_maps(KEYS, 64, (64, 64)), LensSafe().local_maps(KEYS, 32, (64, 64))],
    ids=["global", "local"],
)
def test_lens_safe_turns_by_any_angle(maps):
    angle = torch.atan2(-maps[..., 0, 1], maps[..., 1, 1])
    counts = torch.histc(angle, bins=20, min=-math.pi, max=math.pi)
    assert ((counts - 200) ** 2 / 200).sum() < 50  # chi-square of 19 degrees of freedom


def test_lens_safe_global_shift_is_within_its_limit_and_reaches_it():
    shift = LensSafe(max_shift_px=3.0).global_maps(KEYS, 64, (64, 64))[..., 2].norm(dim=-1)
    assert shift.max() <= 3.0 + 1e-5
    assert shift.max() > 2.9
    assert torch.equal(LensSafe(max_shift_px=0.0).global_maps(KEYS, 64, (64, 64))[..., 2], torch.zeros(4000, 1, 2))


@pytest.mark.parametrize("image_size", [(64, 64), (70, 48), (32, 32)])
def test_lens_safe_local_crops_lie_in_the_image_and_cover_it(image_size):
    height, width = image_size
    centre = LensSafe().local_maps(KEYS, 32, image_size)[..., 2].abs().amax((0, 1))
    room = torch.tensor([(width - 32) / 2, (height - 32) / 2])
    assert (centre <= room).all()
    assert (centre >= 0.98 * room).all()


def test_a_ring_keeps_its_radius_and_stays_inside_the_global_crop():
    radius_px, size = 20.0, 64
    image = ring(size, radius_px)
    (views,) = resample(
        image, [LensSafe(max_shift_px=4.0).global_maps(KEYS[:40].T, size, (size, size))], (size,), "bilinear"
    )
    views = views[:, 0, 0]
    flux = views.sum((1, 2))
    position = torch.arange(size, dtype=torch.float32)
    x = (views.sum(1) * position).sum(1) / flux
    y = (views.sum(2) * position).sum(1) / flux
    distance = torch.hypot(position[None, :, None] - y[:, None, None], position - x[:, None, None])
    radius = (views * distance).sum((1, 2)) / flux
    expected = (image[0, 0] * torch.hypot(position[:, None] - 31.5, position - 31.5)).sum() / image.sum()
    assert (radius - expected).abs().max() < 0.15
    assert (flux / image.sum() - 1).abs().max() < 0.02
    centre_shift = torch.hypot(x - 31.5, y - 31.5)
    assert centre_shift.max() < 4.1
    assert centre_shift.max() > 2


def test_imagenet_crops_lie_in_the_image_with_the_asked_areas_and_ratios():
    policy = ImageNetCrops()
    for maps, size, (low, high) in (
        (policy.global_maps(KEYS, 64, (64, 64)), 64, (0.4, 1.0)),
        (policy.local_maps(KEYS, 32, (64, 64)), 32, (0.05, 0.4)),
    ):
        assert corners(maps, size).abs().max() <= 32 + 1e-4
        assert torch.equal(maps[..., 0, 1], torch.zeros(4000, 1))
        assert torch.equal(maps[..., 1, 0], torch.zeros(4000, 1))
        width, height = maps[..., 0, 0].abs() * size, maps[..., 1, 1] * size
        area, ratio = width * height / 64**2, width / height
        assert low - 1e-5 <= area.min()
        assert area.max() <= high + 1e-5
        assert ratio.min() >= 0.7499
        assert ratio.max() <= 1.3335
        assert abs((maps[..., 0, 0] < 0).float().mean() - 0.5) < 5 * 0.5 / 4000**0.5
    assert abs(area.mean() - 0.225) < 5 * 0.35 / 12**0.5 / 4000**0.5  # of the local crops, which always fit


def test_imagenet_crop_that_never_fits_is_the_whole_image():
    maps = ImageNetCrops(global_scale=(1.0, 1.0), ratio=(2.0, 3.0)).global_maps(KEYS[:5], 64, (64, 64))
    assert torch.allclose(maps[..., 0, 0].abs() * 64, torch.tensor(64.0))
    assert torch.allclose(maps[..., 1, 1] * 64, torch.tensor(64.0))
    assert torch.allclose(maps[..., 2], torch.zeros(5, 1, 2), atol=1e-5)
