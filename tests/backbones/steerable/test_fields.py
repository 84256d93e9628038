"""Parts of networks over regular fields, in torch alone."""

import e2cnn.nn as e2nn
import pytest
import torch
import torch.nn.functional as F
from e2cnn import gspaces

from ssl_lens.backbones.steerable.convolution import SteerableConv2d
from ssl_lens.backbones.steerable.fields import (
    AntialiasedDownsample,
    CircularMask,
    FieldNorm,
    GroupPool,
    LensFrame,
    field_pool,
)
from ssl_lens.backbones.steerable.groups import ORDERS


@torch.no_grad()
def test_downsampling_averages_with_binomial_weights_centred_on_the_map():
    halve = AntialiasedDownsample()
    impulse = torch.zeros(1, 1, 6, 5)
    impulse[0, 0, 2, 2] = 1
    rows = torch.tensor([1.0, 3.0, 0.0]) / 8  # even: outputs lie between pixels 0|1, 2|3, 4|5
    columns = torch.tensor([1.0, 6.0, 1.0]) / 16  # odd: outputs lie on pixels 0, 2, 4
    torch.testing.assert_close(halve(impulse)[0, 0], rows[:, None] * columns, atol=1e-7, rtol=0)


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (6, 7), (2, 5), (1, 1)])
@torch.no_grad()
def test_downsampling_commutes_with_turns_and_keeps_a_flat_map(size):
    torch.manual_seed(0)
    halve = AntialiasedDownsample().double()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    small = halve(images)
    assert small.shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(halve(images.rot90(1, (2, 3))), small.rot90(1, (2, 3)), atol=1e-14, rtol=0)
    torch.testing.assert_close(halve(images.flip(2)), small.flip(2), atol=1e-14, rtol=0)
    assert halve(torch.ones(1, 1, 9, 9, dtype=torch.float64))[0, 0, 2, 2] == 1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize("size", [(6, 7), (9, 4), (1, 2)])
def test_downsampling_on_a_cpu_is_the_convolution_of_a_gpu(size, dtype, tolerance):
    torch.manual_seed(0)
    halve, x = AntialiasedDownsample(), torch.randn(2, 3, *size, dtype=dtype, requires_grad=True)
    taps = [halve.odd_taps if side % 2 else halve.even_taps for side in size]
    kernel = (taps[0][:, None] * taps[1]).to(dtype).expand(3, 1, -1, -1)
    padding = tuple((len(side) - 1) // 2 for side in taps)
    ours, theirs = halve(x), F.conv2d(x, kernel, stride=2, padding=padding, groups=3)
    upstream = torch.randn_like(ours)
    for mine, plain in (
        (ours, theirs),
        *zip(torch.autograd.grad(ours, x, upstream), torch.autograd.grad(theirs, x, upstream), strict=True),
    ):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine, plain, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("size", [1, 5, 64, 65])
def test_the_mask_is_e2cnns(size):
    scalar = e2nn.FieldType(gspaces.Rot2dOnR2(4), [gspaces.Rot2dOnR2(4).trivial_repr])
    theirs = e2nn.MaskModule(scalar, size, margin=1).mask[0, 0]
    torch.testing.assert_close(CircularMask(margin=1)(torch.ones(1, 1, size, size))[0, 0], theirs, atol=1e-5, rtol=0)


def test_the_mask_of_an_oblong_image_is_a_circle_of_its_shorter_side():
    wide = CircularMask()(torch.ones(1, 1, 9, 15))
    torch.testing.assert_close(wide[..., 3:12], CircularMask()(torch.ones(1, 1, 9, 9)))
    assert wide[..., 4, 0].item() < 1e-2


def test_pooling_takes_the_channels_of_one_field_together():
    x = torch.tensor([1.0, 5, 2, -1, -3, -2]).view(1, 6, 1, 1)
    assert GroupPool(3)(x).flatten().tolist() == [5, -1]
    assert GroupPool(3, "mean")(x).flatten().tolist() == pytest.approx([8 / 3, -2])


def test_the_lens_frame_turns_a_fields_elements_towards_the_middle():
    """One field of C4 whose second element, that of 90 degrees, answers everywhere."""
    field = torch.zeros(1, 4, 5, 5)
    field[:, 1] = 4
    isotropic, once, twice = LensFrame("C4")(field)[0]
    assert isotropic.unique().tolist() == [1]
    assert once[:, 2].tolist() == pytest.approx([1, 1, 0, -1, -1], abs=1e-6)  # above the middle 90 degrees is outwards
    assert once[2].tolist() == pytest.approx([0] * 5, abs=1e-6)
    assert twice[2].tolist() == pytest.approx([-1, -1, 0, -1, -1], abs=1e-6)  # next to it, tangential


@pytest.mark.parametrize("group", ORDERS)
@pytest.mark.parametrize("size", [(12, 12), (13, 13), (9, 14)])
@torch.no_grad()
def test_the_lens_frame_turns_and_flips_with_the_image(group, size):
    torch.manual_seed(0)
    conv, frame = SteerableConv2d(group, 1, 3, 5, scalar_input=True).double(), LensFrame(group)
    images = torch.randn(1, 1, *size, dtype=torch.float64)
    maps = frame(conv(images).relu())
    assert maps.shape == (1, 9, *size)
    torch.testing.assert_close(frame(conv(images.rot90(1, (2, 3))).relu()), maps.rot90(1, (2, 3)), atol=1e-6, rtol=0)
    for axis in (2, 3):
        change = (frame(conv(images.flip(axis)).relu()) - maps.flip(axis)).abs().max()
        assert change <= 1e-6 if group[0] == "D" else change > 1e-3


@pytest.mark.parametrize("group", ["C8", "D4"])
def test_the_mean_over_a_field_is_the_lens_frames_first_harmonic(group):
    x = torch.randn(2, 2 * ORDERS[group], 6, 7)
    torch.testing.assert_close(field_pool(group, "lens_frame")(x)[:, ::3], field_pool(group, "mean")(x))


@torch.no_grad()
def test_the_norm_normalises_each_pixel_and_scales_each_field():
    norm = FieldNorm(fields=2, order=4)
    norm.weight.copy_(torch.tensor([1.0, 3.0]))
    norm.bias.copy_(torch.tensor([0.0, 10.0]))
    x = torch.randn(2, 8, 3, 5)
    plain = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(x), torch.cat([plain[:, :4], 3 * plain[:, 4:] + 10], dim=1))
