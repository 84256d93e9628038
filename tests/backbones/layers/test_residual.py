"""Residual paths next to timm's drop path."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from ssl_lens.backbones.layers.residual import add_path


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_same_samples_are_dropped_as_timm_drops_and_the_others_scaled_alike(dtype):
    x, path, drop_path = torch.randn(50, 3, 2).to(dtype), torch.randn(50, 3, 2).to(dtype), DropPath(0.3)
    torch.manual_seed(0)
    expected = x + drop_path(path)
    torch.manual_seed(0)
    rounding = 1e-14 if dtype == torch.float64 else 2**-7  # of numbers of size 2, once instead of twice
    torch.testing.assert_close(add_path(x, path, drop_path), expected, rtol=rounding, atol=rounding)
    torch.manual_seed(0)
    dropped = (add_path(x, path, drop_path) == x).all(dim=2).all(dim=1)
    assert 0 < dropped.sum() < 50


def test_gradients_are_timms_and_have_gradients():
    x, path = (torch.randn(8, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    drop_path, seen = DropPath(0.4), []
    for function in (lambda: add_path(x, path, drop_path), lambda: x + drop_path(path)):
        torch.manual_seed(0)
        first = torch.autograd.grad(function().sin().sum(), (x, path), create_graph=True)
        seen.append([*first, *torch.autograd.grad(sum(each.square().sum() for each in first), (x, path))])
    for ours, theirs in zip(*seen, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-13, rtol=0)


@pytest.mark.parametrize("drop_path", [nn.Identity(), DropPath(0.3).eval(), DropPath(0.0)])
def test_nothing_is_dropped_elsewhere(drop_path):
    x, path = torch.randn(20, 2), torch.randn(20, 2)
    assert torch.equal(add_path(x, path, drop_path), x + path)
