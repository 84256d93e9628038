"""Residual paths that are dropped at random."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.autograd import Function


def add_path(x: Tensor, path: Tensor, drop_path: nn.Module) -> Tensor:
    """x + drop_path(path) of [B, ...]: the path's mask, one number per sample, is applied as it is added."""
    if not isinstance(drop_path, DropPath) or not drop_path.training or drop_path.drop_prob == 0:
        return x + drop_path(path)
    kept = 1 - drop_path.drop_prob
    mask = path.new_empty(path.shape[0], *[1] * (path.ndim - 1)).bernoulli_(kept).div_(kept)
    return _Sum.apply(x, path, mask)


class _Sum(Function):
    """x + mask * path; torch's addcmul, whose own backward would multiply the mask by 1 first."""

    @staticmethod
    def forward(ctx, x, path, mask):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(mask)
        return torch.addcmul(x, path, mask)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (mask,) = ctx.saved_tensors
        return gradient, gradient * mask, None
