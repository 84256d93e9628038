"""Layer norm that keeps the precision of what it is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` that reads and writes bfloat16 under its autocast; its statistics are float32.

    torch's own writes float32 there, and all that is added to the residual path behind it becomes float32 too.
    """

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if not torch.is_autocast_enabled(device) or torch.get_autocast_dtype(device) != torch.bfloat16:
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            x = as_autocast(x, torch.bfloat16)
            return torch.native_layer_norm(x, x.shape[-1:], *norm_parameters(self, x), self.eps)[0]


def norm_parameters(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a norm in the precision in which torch's kernel takes them for x, its statistics in float32.

    A card's kernel wants the precision of x; a processor's takes that of the statistics from them.
    """
    dtype = x.dtype if x.is_cuda else torch.promote_types(x.dtype, torch.float32)
    return norm.weight.to(dtype), norm.bias.to(dtype)


def as_autocast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as autocast to `dtype` hands it to a product: float64 stays."""
    return x if x.dtype == torch.float64 else x.to(dtype)
