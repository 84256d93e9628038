"""Statistics of a convolution's output from those of its patches."""

import pytest
import torch
import torch.nn.functional as F

from ssl_lens.backbones.steerable.convolution import SteerableConv2d, SteerableLayer
from ssl_lens.backbones.steerable.fields import GroupPool, lift
from ssl_lens.backbones.steerable.moments import patch_moments


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 1), (1, 0)])
def test_mean_and_variance_of_any_filters_output(kernel, padding):
    torch.manual_seed(0)
    x, filters = torch.randn(5, 2, 8, 9).double() + 3, torch.randn(3, 2, kernel, kernel).double()
    mean, covariance = patch_moments(x, kernel, padding)
    y, matrix = F.conv2d(x, filters, padding=padding), filters.flatten(1)
    torch.testing.assert_close(matrix @ mean, y.mean(dim=(0, 2, 3)), atol=1e-12, rtol=0)
    variance = y.var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close((matrix @ covariance * matrix).sum(1), variance, atol=1e-11, rtol=0)


def layer(kernel: int) -> SteerableLayer:
    torch.manual_seed(0)
    made = SteerableLayer(SteerableConv2d("C4", 1, 3, kernel, scalar_input=kernel > 1)).double()
    for parameter in made.norm.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_lift_in_parts_is_the_layer_with_its_gradients_and_running_statistics(kernel):
    ours, plain = layer(kernel), layer(kernel)
    pool = GroupPool(4, "mean")
    gradients = []
    x = torch.randn(19, 4 if kernel == 1 else 1, 6, 7, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(19, 3, 6, 7, dtype=torch.float64)
    maps, pooled = lift(ours, x, lambda part: part, pool)
    torch.testing.assert_close(maps, F.relu(plain(x)), atol=1e-11, rtol=0)
    for module, y in ((ours, pooled), (plain, pool(F.relu(plain(x))))):
        gradients.append(torch.autograd.grad(y, (x, *module.parameters()), upstream))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)
    plain = layer(kernel)
    plain(x)
    assert ours.norm.num_batches_tracked == plain.norm.num_batches_tracked == 1
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours.norm, name), getattr(plain.norm, name), atol=1e-12, rtol=0)


def test_images_far_from_zero_keep_their_digits():
    torch.manual_seed(0)
    ours = layer(1).float()
    x = torch.randn(8, 4, 9, 9) + 1000
    exact = layer(1)(x.double()).relu()
    torch.testing.assert_close(lift(ours, x, torch.nn.Identity())[0].double(), exact, atol=2e-2, rtol=0)


def test_under_autocast_statistics_keep_float32():
    torch.manual_seed(0)
    x = torch.randn(9, 1, 8, 9) + 20  # in bfloat16 a multiple of 1/8
    ours, plain = layer(3).float(), layer(3).float()
    with torch.autocast("cpu", torch.bfloat16):
        (maps,) = lift(ours, x, torch.nn.Identity())
    assert maps.dtype == torch.bfloat16
    plain(x)
    torch.testing.assert_close(ours.norm.running_mean, plain.norm.running_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.norm.running_var, plain.norm.running_var, atol=1e-5, rtol=1e-5)


def test_where_it_does_not_pay_the_layer_is_done_to_all():
    made, x = layer(3), torch.randn(4, 1, 6, 6).double()
    assert made.of_batch(x) is not None
    assert made.eval().of_batch(x) is None
    assert made.train().of_batch(x.to("meta")) is None  # any device but the CPU
    wide = SteerableLayer(SteerableConv2d("C4", 4, 1, 3)).double()  # patches of 144 numbers for 4 channels
    assert wide.of_batch(torch.randn(4, 16, 6, 6).double()) is None
    apart = SteerableLayer(SteerableConv2d("C4", 2, 2, 1, groups=2)).double()
    assert apart.of_batch(torch.randn(4, 8, 6, 6).double()) is None
