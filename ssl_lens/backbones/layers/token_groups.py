"""Maps cut into groups of tokens that attend to each other, and that attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from ssl_lens.backbones.layers.attention import attention_backward, contiguous, fused_attention
from ssl_lens.backbones.layers.products import linear_backward, lowered


def even_groups(side: int, largest: int) -> tuple[int, int]:
    """Size and number of the fewest, evenly wide groups of `largest` tokens or less: 8 tokens are 4 + 4, not 7 + 1."""
    count = -(-side // largest)
    return -(-side // count), count


class Groups(NamedTuple):
    """How a map is cut into groups of tokens that attend to each other; all (vertical, horizontal).

    A group holds `size` tokens: neighbours, or, if `distant`, tokens that lie `count` apart over the whole map. The map
    is padded with zeros at its bottom and right to whole groups, then rolled by `shift` tokens to the top and left.
    """

    size: tuple[int, int]
    count: tuple[int, int]  # type: ignore[assignment]  # rather than tuple's method
    distant: bool = False
    shift: tuple[int, int] = (0, 0)

    @classmethod
    def even(cls, height: int, width: int, largest: int, distant: bool = False) -> Groups:
        """As `even_groups` along each axis."""
        size, count = zip(even_groups(height, largest), even_groups(width, largest), strict=True)
        return cls(size, count, distant)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the padded map."""
        return self.size[0] * self.count[0], self.size[1] * self.count[1]

    def pad(self, x: Tensor) -> Tensor:
        """A map [B, H, W, C], padded and rolled."""
        height, width = x.shape[1:3]
        if self.padded != (height, width):
            x = F.pad(x, (0, 0, 0, self.padded[1] - width, 0, self.padded[0] - height))
        return x.roll((-self.shift[0], -self.shift[1]), dims=(1, 2)) if any(self.shift) else x

    def crop(self, x: Tensor, height: int, width: int) -> Tensor:
        """Inverse of `pad`: rolled back, without the padding."""
        if any(self.shift):
            x = x.roll(self.shift, dims=(1, 2))
        return x[:, :height, :width]

    def gather(self, x: Tensor) -> Tensor:
        """A map [B, H, W, C] to groups [B, G, N, C]."""
        return self.cut(self.pad(x), 1, 1).flatten(0, 1).squeeze(2)

    def scatter(self, groups: Tensor, height: int, width: int) -> Tensor:
        """Groups [B, G, N, C] back to the map [B, height, width, C], without the padding."""
        return self.crop(self.join(groups[None, :, :, None]), height, width)

    def cut(self, x: Tensor, parts: int, heads: int) -> Tensor:
        """A padded map [B, h, w, parts * heads * C] to the groups of each head [parts, B, G, heads, N, C]."""
        (rows, columns), (down, across) = self.size, self.count
        if self.distant:
            x = x.reshape(-1, rows, down, columns, across, parts, heads, x.shape[3] // (parts * heads))
            x = x.permute(5, 0, 2, 4, 6, 1, 3, 7)
        else:
            x = x.reshape(-1, down, rows, across, columns, parts, heads, x.shape[3] // (parts * heads))
            x = x.permute(5, 0, 1, 3, 6, 2, 4, 7)
        return contiguous(x).view(parts, -1, down * across, heads, rows * columns, x.shape[7])

    def join(self, x: Tensor) -> Tensor:
        """Inverse of `cut`."""
        (rows, columns), (down, across) = self.size, self.count
        parts, _, _, heads, _, channels = x.shape
        x = x.reshape(parts, -1, down, across, heads, rows, columns, channels)
        x = x.permute(1, 5, 2, 6, 3, 0, 4, 7) if self.distant else x.permute(1, 2, 5, 3, 6, 0, 4, 7)
        return contiguous(x).view(-1, *self.padded, parts * heads * channels)

    def padding_mask(self, height: int, width: int, like: Tensor) -> Tensor | None:
        """Additive mask [G, 1, 1, N], -inf for keys that are padding; None where nothing is padded."""
        if self.padded == (height, width):
            return None
        present = self.gather(like.new_ones(1, height, width, 1))[0, :, None, None, :, 0]
        return torch.zeros_like(present).masked_fill(present == 0, float("-inf"))


class GroupAttention(nn.Module):
    """Multi-head self-attention within groups of tokens."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, groups: Groups, bias: Tensor | None) -> Tensor:
        """A map [B, H, W, C] to the same shape; a bias of the scores broadcasts to [G, heads, N, N]."""
        return self.proj(attend_in_groups(x, groups, self.qkv, self.num_heads, bias))


def attend_in_groups(x: Tensor, groups: Groups, qkv: nn.Linear, num_heads: int, bias: Tensor | None) -> Tensor:
    """Attention within groups of a map [B, H, W, C], without its last layer; the bias broadcasts to [G, heads, N, N].

    For backward x alone is kept in half precision, whose products cost less than their memory does; in float32 and
    wider queries, keys and values are kept too.
    """
    height, width = x.shape[1:3]
    if not torch.is_grad_enabled():
        query, key, value = groups.cut(qkv(groups.pad(x)), 3, num_heads)
        return groups.crop(groups.join(fused_attention(query, key, value, bias)[None]), height, width)
    x, weight, of_qkv, bias = lowered(x, qkv.weight, qkv.bias, bias)
    with torch.autocast(x.device.type, enabled=False):
        return _AttentionInGroups.apply(x, weight, of_qkv, bias, groups, num_heads)


class _AttentionInGroups(Function):
    @staticmethod
    def forward(ctx, x, weight, qkv_bias, bias, groups, num_heads):  # type: ignore[no-untyped-def]
        height, width = x.shape[1:3]
        qkv = groups.cut(F.linear(groups.pad(x), weight, qkv_bias), 3, num_heads)
        kept = None if x.dtype.itemsize < 4 else qkv
        ctx.save_for_backward(x, weight, qkv_bias, bias, kept)
        ctx.groups, ctx.num_heads = groups, num_heads
        attended = fused_attention(*qkv.unbind(), bias)
        return groups.crop(groups.join(attended[None]), height, width)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        x, weight, qkv_bias, bias, qkv = ctx.saved_tensors
        groups, num_heads, (height, width) = ctx.groups, ctx.num_heads, x.shape[1:3]
        with torch.autocast(x.device.type, enabled=False):
            padded = groups.pad(x)
            if qkv is None or torch.is_grad_enabled():  # a second derivative needs to know where they come from
                qkv = groups.cut(F.linear(padded, weight, qkv_bias), 3, num_heads)
            of_attended = groups.cut(groups.pad(gradient), 1, num_heads)[0]
            *of_parts, of_bias = attention_backward(of_attended, *qkv.unbind(), bias, ctx.needs_input_grad[3])
            of_qkv = groups.join(torch.stack(of_parts))
            of_x, of_weight, of_qkv_bias = linear_backward(of_qkv, padded, weight, ctx.needs_input_grad[:3])
            of_x = None if of_x is None else groups.crop(of_x, height, width)
        return of_x, of_weight, of_qkv_bias, of_bias, None, None
