"""Views as a whole: shapes, repeatability, and one exact resampling."""

import numpy as np
import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.views import multicrop
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import MultiCrop, Views, resample
from ssl_lens.views.photometry import Photometry
from ssl_lens.views.policy import Sky
from ssl_lens.views.randomness import fold_in, image_keys

POLICIES = [(LensSafe(), {"flux_effects": Photometry()}, 1), (ImageNetCrops(), {"pixel_effects": ColourJitter()}, 3)]


def pictures(n: int, channels: int, size: int = 64) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def cropper(geometry, effects) -> MultiCrop:
    return MultiCrop(geometry, global_size=48, local_sizes=(32, 24), local_counts=(3, 2), **effects)


def largest_difference(one: Views, other: Views) -> float:
    pairs = zip((one.global_crops, *one.local_crops), (other.global_crops, *other.local_crops), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def flat(views: Views) -> list[torch.Tensor]:
    return [view for crops in (views.global_crops, *views.local_crops) for view in crops]


@pytest.mark.parametrize(("geometry", "effects", "channels"), POLICIES)
def test_shapes(geometry, effects, channels):
    views = cropper(geometry, effects)(pictures(5, channels), torch.arange(5), seed=0, epoch=0)
    assert views.global_crops.shape == (2, 5, channels, 48, 48)
    assert [crops.shape for crops in views.local_crops] == [(3, 5, channels, 32, 32), (2, 5, channels, 24, 24)]
    assert all(crops.is_contiguous() for crops in (views.global_crops, *views.local_crops))


def test_without_local_crops():
    views = MultiCrop(LensSafe(), global_size=64)(pictures(2, 1), torch.arange(2), seed=0, epoch=0)
    assert views.global_crops.shape == (2, 2, 1, 64, 64)
    assert views.local_crops == ()


@pytest.mark.parametrize(("geometry", "effects", "channels"), POLICIES)
def test_views_of_an_image_do_not_depend_on_its_batch(geometry, effects, channels):
    images, index = pictures(70, channels), torch.arange(70) + 1000  # 70: more than one chunk
    whole = cropper(geometry, effects)(images, index, seed=1, epoch=2)
    order = torch.tensor([69, 3, 40, 12, 0])
    some = cropper(geometry, effects)(images[order], index[order], seed=1, epoch=2)
    expected = Views(whole.global_crops[:, order], tuple(crops[:, order] for crops in whole.local_crops))
    assert largest_difference(some, expected) <= 1e-6


@pytest.mark.parametrize(("geometry", "effects", "channels"), POLICIES)
def test_chunks_change_nothing(geometry, effects, channels, monkeypatch):
    images, index = pictures(10, channels), torch.arange(10)
    whole = cropper(geometry, effects)(images, index, seed=1, epoch=2)
    monkeypatch.setattr(multicrop, "_CPU_CHUNK", 4)
    assert largest_difference(cropper(geometry, effects)(images, index, seed=1, epoch=2), whole) <= 1e-6


@pytest.mark.parametrize(("geometry", "effects", "channels"), POLICIES)
def test_seed_epoch_index_and_view_make_different_views(geometry, effects, channels):
    make = cropper(geometry, effects)
    image = pictures(1, channels)
    variants = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    made = [flat(make(image, torch.tensor([i]), seed=seed, epoch=epoch)) for seed, epoch, i in variants]
    for position in range(len(made[0])):
        for other in made[1:]:
            assert (made[0][position] - other[position]).abs().mean() > 0.05
    for same_size in (made[0][:2], made[0][2:5], made[0][5:]):
        assert (same_size[0] - same_size[1]).abs().mean() > 0.05


def test_images_are_left_alone():
    images = pictures(3, 3)
    cropper(*POLICIES[1][:2])(images, torch.arange(3), seed=0, epoch=0)
    assert torch.equal(images, pictures(3, 3))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_identity_map_returns_the_image(interpolation):
    images = pictures(3, 2)
    identity = torch.eye(2, 3).expand(3, 1, 2, 3)
    (same,) = resample(images, [identity], (64,), interpolation)
    assert torch.equal(same[0], images)


@pytest.mark.parametrize("size", [64, 65, 150])
@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_quarter_turns_equal_rot90(size, quarter_turns):
    images = pictures(2, 1, size)
    angle = torch.tensor(quarter_turns * torch.pi / 2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).round().view(2, 2)
    map_ = torch.cat([turn, torch.zeros(2, 1)], 1).expand(2, 1, 2, 3)
    (turned,) = resample(images, [map_], (size,), "bilinear")
    assert torch.allclose(turned[0], torch.rot90(images, quarter_turns, (2, 3)), atol=1e-4)


def test_a_crop_by_whole_pixels_is_a_slice_on_a_wide_image():
    images = torch.randn(2, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    # 16 px crop whose first pixel is row 4, column 40: centre (12, 48) against (16, 32)
    map_ = torch.tensor([[1.0, 0.0, 16.0], [0.0, 1.0, -4.0]]).expand(2, 1, 2, 3)
    (crop,) = resample(images, [map_], (16,), "bilinear")
    assert torch.allclose(crop[0], images[:, :, 4:20, 40:56], atol=1e-6)


def test_several_views_and_sizes_in_one_pass_equal_one_at_a_time():
    images = pictures(3, 2)
    keys = torch.arange(12).view(3, 4)
    maps = [LensSafe().global_maps(keys, 48, (64, 64)), LensSafe().local_maps(keys[:, :2], 20, (64, 64))]
    together = resample(images, maps, (48, 20), "bilinear")
    for crops, map_, size in zip(together, maps, (48, 20), strict=True):
        for view in range(map_.shape[1]):
            (alone,) = resample(images, [map_[:, view : view + 1]], (size,), "bilinear")
            assert torch.allclose(crops[view], alone[0], atol=1e-6)


def test_crop_larger_than_the_image_is_refused():
    make = MultiCrop(LensSafe(), global_size=64, local_sizes=(96,), local_counts=(2,))
    with pytest.raises(InputError, match=r"local_sizes=96 exceeds the image size 64x64; set it to 64 or less"):
        make(pictures(2, 1), torch.arange(2), seed=0, epoch=0)


def test_sizes_without_counts_are_refused():
    with pytest.raises(InputError, match=r"local_sizes has 2 entries and local_counts has 1"):
        MultiCrop(LensSafe(), global_size=64, local_sizes=(32, 24), local_counts=(6,))


def test_corners_of_turned_views_show_the_sky_around_the_image():
    """Where views look is as without the surroundings; what they see within the image, too; and beyond it the sky."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(80.0), indexing="ij")
    sky = (torch.sin(x / 9) + torch.cos(y / 7)).expand(40, 1, 80, 80)  # smooth, so that sampling it is nearly exact
    inner = sky[..., 15:65, 15:65]
    index = torch.arange(40)

    def views(images: torch.Tensor, margin: int) -> Views:
        make = MultiCrop(LensSafe(), global_size=50, local_sizes=(24,), local_counts=(3,), margin=margin)
        assert torch.equal(make.within(images), inner)
        return make(images, index, seed=3, epoch=0)

    keys = fold_in(fold_in(image_keys(3, 0, index)[:, None], torch.arange(5)), 0)
    maps = [LensSafe().global_maps(keys[:, :2], 50, (50, 50)), LensSafe().local_maps(keys[:, 2:], 24, (50, 50))]
    streaks = 0
    for with_sky, alone, map_ in zip(views(sky, 15).all(), views(inner, 0).all(), maps, strict=True):
        position = torch.arange(with_sky.shape[-1]) - (with_sky.shape[-1] - 1) / 2
        a, b, c = map_[..., None, None, :].unbind(-1)  # each [B, V, 2, 1, 1]
        place = a * position + b * position[:, None] + c
        x, y = place.permute(2, 1, 0, 3, 4)  # [V, B, s, s], px from the centre
        true = torch.sin((x + 39.5) / 9) + torch.cos((y + 39.5) / 7)
        inside = (x.abs() < 24.5) & (y.abs() < 24.5)
        assert (with_sky[:, :, 0] - true).abs().max() < 0.01
        assert (with_sky - alone)[:, :, 0][inside].abs().max() < 1e-5
        streaks += ((alone[:, :, 0] - true).abs() > 0.1).sum()
    assert streaks > 1000  # without the surroundings there are


def test_light_is_resampled_then_observed_then_stretched_then_shown():
    """Between a pixel of 100 and one of 0 lie 50, which are changed by 10, whose asinh is then jittered."""
    steps = []

    def observe(views, keys, kinds, sky):
        steps.append("observed")
        assert (views - 50).abs().max() < 1e-4
        assert (sky.level.tolist(), sky.noise.flatten().tolist()) == ([7.0], [0.25, 0.25])
        return views + 10

    def stretch(views):
        steps.append("stretched")
        return views.asinh()

    def jitter(views, keys, kinds):
        steps.append("shown")
        torch.testing.assert_close(views, torch.full_like(views, 60).asinh(), rtol=0, atol=1e-4)
        return -views

    class BetweenTwo:
        def global_maps(self, keys, size, image_size):
            return torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).expand(*keys.shape, 2, 3)

    sky = Sky(torch.tensor([7.0]), torch.tensor([[1.0], [0.25]]))
    make = MultiCrop(
        BetweenTwo(), flux_effects=observe, stretch=stretch, pixel_effects=jitter, global_size=1, n_global=2, sky=sky
    )
    columns = torch.tensor([0.0, 100.0]).expand(1, 1, 2, 2)
    views = make(columns, torch.tensor([1]), seed=0, epoch=0)
    assert steps == ["observed", "stretched", "shown"]
    torch.testing.assert_close(views.global_crops, torch.full((2, 1, 1, 1, 1), -np.arcsinh(60.0)), rtol=0, atol=1e-4)


def test_turned_views_have_the_flux_of_their_image():
    """A round source of 200 at any angle; interpolated behind asinh it would lose more than 2 % of its flux."""
    y, x = torch.meshgrid(torch.arange(33.0) - 16, torch.arange(33.0) - 16, indexing="ij")
    source = 200 * torch.exp(-(x**2 + y**2) / (2 * 1.2**2)).expand(200, 1, 33, 33)
    make = MultiCrop(LensSafe(max_shift_px=2.0), global_size=33)
    views = make(source, torch.arange(200), seed=0, epoch=0).global_crops
    stretched = make(source.asinh(), torch.arange(200), seed=0, epoch=0).global_crops.sinh()
    flux = source[0].sum()
    assert ((views.sum((2, 3, 4)) / flux - 1).mean()).abs() < 0.002
    assert (stretched.sum((2, 3, 4)) / flux - 1).mean() < -0.02


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("geometry", "effects", "channels"), POLICIES)
def test_gpu_makes_the_same_views(geometry, effects, channels):
    images, index = pictures(9, channels), torch.arange(9)
    here = cropper(geometry, effects)(images, index, seed=1, epoch=2)
    there = cropper(geometry, effects)(images.cuda(), index, seed=1, epoch=2)
    assert there.global_crops.is_cuda
    there = Views(there.global_crops.cpu(), tuple(crops.cpu() for crops in there.local_crops))
    assert largest_difference(here, there) < 1e-3
