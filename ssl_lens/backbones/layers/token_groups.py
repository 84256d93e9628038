"""Maps cut into groups of tokens that attend to each other, and that attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.layers.attention import attend_per_head, join_heads


def even_groups(side: int, largest: int) -> tuple[int, int]:
    """Size and number of the fewest, evenly wide groups of `largest` tokens or less: 8 tokens are 4 + 4, not 7 + 1."""
    count = -(-side // largest)
    return -(-side // count), count


class Groups(NamedTuple):
    """How a map is cut into groups of tokens that attend to each other; all (vertical, horizontal).

    A group holds `size` tokens: neighbours, or, if `distant`, tokens that lie `count` apart over the whole map.
    """

    size: tuple[int, int]
    count: tuple[int, int]  # type: ignore[assignment]  # rather than tuple's method
    distant: bool = False

    @classmethod
    def even(cls, height: int, width: int, largest: int, distant: bool = False) -> Groups:
        """As `even_groups` along each axis."""
        size, count = zip(even_groups(height, largest), even_groups(width, largest), strict=True)
        return cls(size, count, distant)

    def gather(self, x: Tensor) -> Tensor:
        """A map [B, H, W, C], padded with zeros at its bottom and right, to groups [B, G, N, C]."""
        (rows, columns), (down, across) = self.size, self.count
        batch, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, across * columns - width, 0, down * rows - height))
        if self.distant:
            x = x.reshape(batch, rows, down, columns, across, channels).permute(0, 2, 4, 1, 3, 5)
        else:
            x = x.reshape(batch, down, rows, across, columns, channels).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, down * across, rows * columns, channels)

    def scatter(self, groups: Tensor, height: int, width: int) -> Tensor:
        """Groups [B, G, N, C] back to the map [B, height, width, C], without the padding."""
        (rows, columns), (down, across) = self.size, self.count
        batch, _, _, channels = groups.shape
        x = groups.reshape(batch, down, across, rows, columns, channels)
        x = x.permute(0, 3, 1, 4, 2, 5) if self.distant else x.permute(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, down * rows, across * columns, channels)[:, :height, :width]

    def padding_mask(self, height: int, width: int, like: Tensor) -> Tensor | None:
        """Additive mask [G, 1, 1, N], -inf for keys that are padding; None where nothing is padded."""
        if (self.size[0] * self.count[0], self.size[1] * self.count[1]) == (height, width):
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

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens [B, G, N, C] to the same shape; a bias of the scores broadcasts to [G, heads, N, N]."""
        return self.proj(self.before_proj(x, bias))

    def before_proj(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same without the last layer, for padding that is cut off in between."""
        count = x.shape[1]
        qkv = self.qkv(x).unflatten(3, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = qkv.flatten(2, 3)  # groups and heads as one axis: a bias need not be repeated per image
        if bias is not None:
            bias = bias.expand(count, self.num_heads, -1, -1).flatten(0, 1)[None]
        return join_heads(attend_per_head(query, key, value, bias).unflatten(1, (count, self.num_heads)))
