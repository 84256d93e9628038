"""Linear layers that compute what is in front of them a second time in backward, so that it need not be kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Mlp as TimmMlp
from torch import Tensor, nn
from torch.autograd import Function

from ssl_lens.backbones.layers.norms import as_autocast, norm_parameters


class Mlp(TimmMlp):
    """timm's Linear - GELU - Linear on tokens, with the norm in front of it; of its hidden map one copy is kept."""

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:  # type: ignore[override]  # the norm belongs to it
        """Tokens [..., C] of the residual path, not normed yet, to the same shape."""
        assert isinstance(self.fc1, nn.Linear)
        assert isinstance(self.fc2, nn.Linear)
        return gelu_linear(norm_linear(x, norm, self.fc1), self.fc2)


def norm_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """linear(norm(x)) of tokens [..., C], of which x alone is kept for backward."""
    if not torch.is_grad_enabled():
        return linear(norm(x))
    x, weight, bias = lowered(x, linear.weight, linear.bias)
    with torch.autocast(x.device.type, enabled=False):
        return _NormLinear.apply(x, *norm_parameters(norm, x), norm.eps, weight, bias)


def gelu_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """linear(gelu(x)) of tokens [..., C], of which x alone is kept for backward."""
    if not torch.is_grad_enabled():
        return linear(F.gelu(x))
    x, weight, bias = lowered(x, linear.weight, linear.bias)
    with torch.autocast(x.device.type, enabled=False):
        return _GeluLinear.apply(x, weight, bias)


def lowered(x: Tensor, *parameters: Tensor | None) -> list[Any]:
    """x and parameters in the precision in which a product of them is computed under the present autocast."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return [x, *parameters]
    dtype = torch.get_autocast_dtype(device)
    return [None if part is None else as_autocast(part, dtype) for part in (x, *parameters)]


def linear_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias of a linear layer, those that are needed, from that of its output [..., O]."""
    rows = gradient.flatten(0, -2)
    return (
        gradient @ weight if needs[0] else None,
        rows.mT @ x.flatten(0, -2) if needs[1] else None,
        rows.sum(dim=0) if needs[2] else None,
    )


class _NormLinear(Function):
    @staticmethod
    def forward(ctx, x, norm_weight, norm_bias, eps, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, norm_weight, norm_bias, weight)
        ctx.eps = eps
        return F.linear(F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps), weight, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, norm_weight, norm_bias, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps)
            of_normed, of_weight, of_bias = linear_backward(gradient, normed, weight, (True, *ctx.needs_input_grad[4:]))
            of_x, of_norm_weight, of_norm_bias = torch.ops.aten.native_layer_norm_backward(
                of_normed, x, x.shape[-1:], mean, rstd, norm_weight, norm_bias, ctx.needs_input_grad[:3]
            )
        return of_x, of_norm_weight, of_norm_bias, None, of_weight, of_bias


class _GeluLinear(Function):
    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            of_gelu, of_weight, of_bias = linear_backward(
                gradient, F.gelu(x), weight, (True, *ctx.needs_input_grad[1:])
            )
            of_x = torch.ops.aten.gelu_backward(of_gelu, x)
        return of_x, of_weight, of_bias
