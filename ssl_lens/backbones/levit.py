"""LeViT on timm's parts: a pyramid of attention with batch norm behind a convolutional stem."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

import torch
from timm.layers import DropPath
from timm.models.levit import LevitMlp, LinearNorm, NormLinear, Stem16
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone, SizeRule
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.options import Bounds, Count, Counts, Family, Options, Rate
from ssl_lens.errors import InputError

STEM_STRIDE = 16
MLP_RATIO = 2
VALUE_RATIO = 2  # width of the values over that of the keys
DOWNSAMPLE_VALUE_RATIO = 4  # the same where the map is halved


class Attention(nn.Module):
    """Attention with a learned bias per offset, for any map up to the largest; parameters are named as timm's.

    timm's own fixes the map's size and caches the bias in evaluation mode: an EMA teacher's updates would be lost.
    """

    def __init__(self, dim: int, key_dim: int, num_heads: int, side: int) -> None:
        """`side` of the largest map, in tokens."""
        super().__init__()
        self.num_heads = num_heads
        self.side = side
        self.widths = (key_dim, key_dim, VALUE_RATIO * key_dim)
        self.qkv = LinearNorm(dim, num_heads * sum(self.widths))
        self.proj = _project(num_heads * self.widths[2], dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, side**2))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens [B, h * w, C] of a map of size (h, w) to the same shape."""
        heads = self.qkv(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        query, key, value = heads.split(self.widths, dim=3)
        bias = _offset_bias(self.attention_biases, self.side, size, stride=1)
        return self.proj(attend(query, key, value, bias))


class AttentionDownsample(nn.Module):
    """Attention of every second token, along both axes, to all; parameters are named as timm's."""

    def __init__(self, dim: int, out_dim: int, key_dim: int, side: int) -> None:
        """`side` of the largest map that comes in, in tokens."""
        super().__init__()
        self.num_heads = dim // key_dim
        self.side = side
        self.widths = (key_dim, DOWNSAMPLE_VALUE_RATIO * key_dim)
        self.kv = LinearNorm(dim, self.num_heads * sum(self.widths))
        self.q = nn.Sequential(OrderedDict(ln=LinearNorm(dim, self.num_heads * key_dim)))
        self.proj = _project(self.num_heads * self.widths[1], out_dim)
        self.attention_biases = nn.Parameter(torch.zeros(self.num_heads, side**2))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens [B, h * w, C] of a map of size (h, w) to [B, ceil(h / 2) * ceil(w / 2), D]."""
        key, value = self.kv(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2).split(self.widths, dim=3)
        sampled = x.unflatten(1, size)[:, ::2, ::2].flatten(1, 2)
        query = self.q(sampled).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        bias = _offset_bias(self.attention_biases, self.side, size, stride=2)
        return self.proj(attend(query, key, value, bias))


class Block(nn.Module):
    """Attention and MLP on residual paths; parameters are named as timm's."""

    def __init__(self, dim: int, key_dim: int, num_heads: int, side: int, drop_path: float) -> None:
        super().__init__()
        self.attn = Attention(dim, key_dim, num_heads, side)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.mlp = LevitMlp(dim, dim * MLP_RATIO, act_layer=nn.Hardswish)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path1(self.attn(x, size))
        return x + self.drop_path2(self.mlp(x))


class Downsample(nn.Module):
    """Attention that halves the map, and an MLP on a residual path; parameters are named as timm's."""

    def __init__(self, dim: int, out_dim: int, key_dim: int, side: int, drop_path: float) -> None:
        super().__init__()
        self.attn_downsample = AttentionDownsample(dim, out_dim, key_dim, side)
        self.mlp = LevitMlp(out_dim, out_dim * MLP_RATIO, act_layer=nn.Hardswish)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.attn_downsample(x, size)
        return x + self.drop_path(self.mlp(x))


class Stage(nn.Module):
    """Blocks at one resolution, half the last stage's if there was one; parameters are named as timm's."""

    def __init__(
        self, dim_before: int | None, dim: int, key_dim: int, num_heads: int, depth: int, side: int, drop_path: float
    ) -> None:
        """`side` of the largest map that comes in, in tokens; `dim_before` is None for the first stage."""
        super().__init__()
        if dim_before is not None:
            self.downsample = Downsample(dim_before, dim, key_dim, side, drop_path)
            side = _half(side)
        self.halves = dim_before is not None
        self.blocks = Blocks(Block(dim, key_dim, num_heads, side, drop_path) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, h, w] to [B, D, ceil(h / 2), ceil(w / 2)], or to the same size in the first stage."""
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        if self.halves:
            x = self.downsample(x, (height, width))
            height, width = _half(height), _half(width)
        for block in self.blocks:
            x = self.blocks.run(block, x, (height, width))
        return x.transpose(1, 2).unflatten(2, (height, width))


@dataclass(frozen=True)
class LeViTOptions(Options):
    """Options of a LeViT; the defaults are LeViT-256.

    Attributes:
        embed_dim: channels of each stage (the network's `embed_dim` is the last one's); 1 stage or more.
        depths: blocks of each stage; 0 for none.
        num_heads: attention heads of each stage.
        key_dim: width of a head's queries and keys; its values are twice as wide.
        image_size: longest side of the images it will take, px.
        drop_path: drop rate of every residual path.

    Raises: InputError if embed_dim, depths, num_heads and key_dim do not fit together, or as `Options`.
    """

    embed_dim: Counts = (256, 384, 512)
    depths: tuple[Annotated[int, Bounds(0)], ...] = (4, 4, 4)
    num_heads: Counts = (4, 6, 8)
    key_dim: Count = 32
    image_size: Count = 224
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        embed_dim = self.embed_dim
        if not embed_dim or not len(embed_dim) == len(self.depths) == len(self.num_heads):
            raise InputError(
                f"embed_dim={list(embed_dim)}, depths={list(self.depths)}, num_heads={list(self.num_heads)} of the "
                "LeViT do not fit; give each as many stages"
            )
        if embed_dim[0] % 8 or any(dim % self.key_dim for dim in embed_dim[:-1]):
            raise InputError(
                f"embed_dim={list(embed_dim)} of the LeViT must begin with a multiple of 8 and be multiples of "
                f"key_dim={self.key_dim} before the last stage; change either"
            )


class LeViT(MapBackbone):
    """LeViT: four strided convolutions, then attention that halves the map twice, batch norms after all linear layers.

    The regions are the pixels of the last map, `16 * 2 ** (stages - 1)` px apart, the view is their mean; there is no
    final norm, `head` begins with one. The attention's biases belong to offsets within the largest map, so all images
    up to `image_size` are taken. Parameters are named as in timm's Levit but for `layers` in place of `stages`.

    Source: Graham et al. 2021, in timm's form; the defaults are LeViT-256. Differs: one head, without distillation;
    smaller and non-square images; the last norm of a residual path starts at 1, not 0, so that the untrained network
    uses all its layers.
    """

    options_type = LeViTOptions
    options: LeViTOptions

    def __init__(self, in_channels: int, options: LeViTOptions = LeViTOptions()) -> None:
        """Builds the network with random weights."""
        embed_dim, image_size = options.embed_dim, options.image_size
        super().__init__(in_channels, embed_dim[-1], STEM_STRIDE * 2 ** (len(embed_dim) - 1))
        self.options = options
        self.image_size = image_size
        self.stem = Stem16(in_channels, embed_dim[0], act_layer=nn.Hardswish)
        self.layers = nn.ModuleList()
        side = -(-image_size // STEM_STRIDE)
        for i, dim in enumerate(embed_dim):
            dim_before = embed_dim[i - 1] if i else None
            self.layers.append(
                Stage(
                    dim_before, dim, options.key_dim, options.num_heads[i], options.depths[i], side, options.drop_path
                )
            )
            side = _half(side) if i else side
        for module in self.layers.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.ones_(module.weight)

    @property
    def accepted_sizes(self) -> str:
        return f"up to {self.image_size} px, as built"

    @property
    def size_rule(self) -> SizeRule:
        return SizeRule(largest=(self.image_size, self.image_size))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        if not 0 < min(height, width) <= max(height, width) <= self.image_size:
            raise InputError(
                f"image size {height}x{width} px is refused: this LeViT was built for up to {self.image_size} px; "
                "build it for larger images with image_size"
            )
        return super().map_size(height, width)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.stem(images)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    @classmethod
    def from_published(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From timm's weights, whose stages are the layers here; without their classifiers, of which some have two."""
        return {
            re.sub(r"^stages\.", "layers.", name): tensor
            for name, tensor in state.items()
            if name.split(".")[0] not in ("head", "head_dist")
        }

    def head(self, num_outputs: int) -> nn.Module:
        """A batch norm and a linear layer, with fresh weights: view features [B, D] to [B, num_outputs]."""
        return NormLinear(self.embed_dim, num_outputs)


def _project(width: int, dim: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(act=nn.Hardswish(), ln=LinearNorm(width, dim)))


def _offset_bias(biases: Tensor, side: int, size: tuple[int, int], stride: int) -> Tensor:
    """Bias [heads, M, N] of every `stride`-th token of a map to all its tokens, by their distance along either axis.

    `biases` [heads, side * side] are those of the largest map; a smaller one's distances are among them.
    """
    rows, columns = (
        (torch.arange(0, n, stride, device=biases.device)[:, None] - torch.arange(n, device=biases.device)).abs()
        for n in size
    )
    index = (side * rows[:, None, :, None] + columns[None, :, None, :]).flatten(2).flatten(0, 1)
    return biases[:, index.flatten()].unflatten(1, index.shape)


def _half(side: int) -> int:
    return -(-side // 2)


VARIANTS = {"levit": LeViTOptions()}
FAMILY = Family(LeViT, VARIANTS)
