"""Scaled dot-product attention in the form that can be exported and differentiated twice."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """`attend_per_head` with the heads joined: to [B, N, heads * V]."""
    return join_heads(attend_per_head(query, key, value, bias))


def attend_per_head(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention head by head: [B, heads, N, C], [B, heads, M, C], [B, heads, M, V] to [B, heads, N, V].

    `bias` is added before the softmax and broadcasts to [B, heads, N, M].
    """
    if query.device.type == "cpu" and torch.is_grad_enabled():  # the fused kernel: no second derivative, no faster
        weights = (query * query.shape[-1] ** -0.5) @ key.mT
        return (weights if bias is None else weights + bias).softmax(dim=-1) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def join_heads(x: Tensor) -> Tensor:
    """[..., heads, N, V] to [..., N, heads * V]."""
    return x.transpose(-3, -2).clone(memory_format=torch.contiguous_format).flatten(-2)  # a bare reshape breaks ONNX
