"""Scaled dot-product attention that can be exported and differentiated twice, and keeps no scores for backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from ssl_lens.backbones.layers.products import lowered


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """`attend_per_head` with the heads joined: to [..., N, heads * V]."""
    return join_heads(attend_per_head(query, key, value, bias))


def attend_per_head(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention head by head: [..., heads, N, C], [..., heads, M, C], [..., heads, M, V] to [..., heads, N, V].

    `bias` is added before the softmax and broadcasts to [..., heads, N, M]; it is never expanded. Backward computes the
    weights again from query and key.
    """
    if not torch.is_grad_enabled() or (bias is None and query.device.type != "cpu"):
        return fused_attention(query, key, value, bias)
    query, key, value, bias = lowered(query, key, value, bias)
    with torch.autocast(query.device.type, enabled=False):
        return _Attention.apply(query, key, value, bias)


def fused_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """torch's kernel, which knows four axes: groups and heads are one of them, so that a bias is not expanded.

    The bias gets no gradient: for one that wants it torch leaves its fast kernels.
    """
    if bias is not None:
        bias = bias.detach()
    if query.ndim == 4:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    shape = query.shape
    if bias is not None:
        bias = bias.expand(*shape[1:-1], key.shape[-2]).flatten(0, -3)[None]
    query, key, value = (part.flatten(1, -3) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).unflatten(1, shape[1:-2])


def join_heads(x: Tensor) -> Tensor:
    """[..., heads, N, V] to [..., N, heads * V]."""
    return contiguous(x.transpose(-3, -2)).flatten(-2)


def contiguous(x: Tensor) -> Tensor:
    """A copy in the order of its axes, as a reshape makes it; but a bare reshape breaks ONNX."""
    return x.clone(memory_format=torch.contiguous_format)


def attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, bias_needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of query, key, value and bias from that of the output [..., heads, N, V]."""
    shape, scale = query.shape, query.shape[-1] ** -0.5
    weights = _weights(query, key, bias)
    of_weights = gradient.flatten(0, -3) @ value.flatten(0, -3).mT
    of_value = weights.flatten(0, -3).mT @ gradient.flatten(0, -3)
    of_scores = torch.ops.aten._softmax_backward_data(of_weights.view_as(weights), weights, -1, weights.dtype)
    of_bias = None
    if bias is not None and bias_needed:
        of_bias = _summed(of_scores, bias)
    of_scores = of_scores.flatten(0, -3)
    of_query = _scaled_product(of_scores, key.flatten(0, -3), scale)
    of_key = _scaled_product(of_scores.mT, query.flatten(0, -3), scale)
    return of_query.view(shape), of_key.view(key.shape), of_value.view(value.shape), of_bias


def _weights(query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(query key^T / sqrt(C) + bias) [..., heads, N, M]."""
    scores = _scaled_product(query.flatten(0, -3), key.flatten(0, -3).mT, query.shape[-1] ** -0.5)
    scores = scores.view(*query.shape[:-1], key.shape[-2])
    if bias is not None:
        scores = scores.add_(bias)  # a product is not needed for its own gradient
    return scores.softmax(dim=-1)


def _scaled_product(x: Tensor, y: Tensor, scale: float) -> Tensor:
    return torch.baddbmm(x.new_empty(1, 1, 1), x, y, beta=0, alpha=scale)


def _summed(gradient: Tensor, like: Tensor) -> Tensor:
    """The gradient [..., heads, N, M] of what was broadcast, added up."""
    padded = [1] * (gradient.ndim - like.ndim) + list(like.shape)
    axes = [axis for axis, (whole, part) in enumerate(zip(gradient.shape, padded, strict=True)) if part < whole]
    return (gradient.sum(dim=axes, keepdim=True) if axes else gradient).view(like.shape)


class _Attention(Function):
    @staticmethod
    def forward(ctx, query, key, value, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(query, key, value, bias)
        return fused_attention(query, key, value, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        query, key, value, bias = ctx.saved_tensors
        with torch.autocast(query.device.type, enabled=False):
            return attention_backward(gradient, query, key, value, bias, ctx.needs_input_grad[3])
