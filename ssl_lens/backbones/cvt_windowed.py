"""Four-stage convolutional transformer with attention in windows, at any image size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, QuickGELU, trunc_normal_
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.cvt import ConvEmbed
from ssl_lens.backbones.cvt_lens import ChannelNorm, StagedOptions, depthwise_projection
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.stages import check_heads, drop_rates
from ssl_lens.backbones.layers.token_groups import even_groups
from ssl_lens.backbones.options import Count, Counts, Family, Rate, Ratio


class Windows(NamedTuple):
    """How a map is cut into windows; all (vertical, horizontal)."""

    count: tuple[int, int]  # type: ignore[assignment]  # rather than tuple's method
    size: tuple[int, int]

    @classmethod
    def evenly_wide(cls, size: tuple[int, int], largest: int) -> Windows:
        """As `even_groups` along each axis."""
        sizes, counts = zip(*(even_groups(side, largest) for side in size), strict=True)
        return cls(counts, sizes)

    @classmethod
    def square(cls, size: tuple[int, int], largest: int) -> Windows:
        """The reference's: squares of `largest` pixels a side, or of the map's shorter side."""
        side = min(largest, *size)
        return cls((-(-size[0] // side), -(-size[1] // side)), (side, side))

    def pad(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Maps [B, C, H, W], grown at the bottom and right to whole windows."""
        bottom = self.count[0] * self.size[0] - x.shape[2]
        right = self.count[1] * self.size[1] - x.shape[3]
        return F.pad(x, (0, right, 0, bottom), value=value) if bottom or right else x

    def cut(self, x: Tensor) -> Tensor:
        """Padded maps [B, C, H, W] to the pixels of their windows [B * nW, C, N]."""
        batch, channels = x.shape[:2]
        x = x.view(batch, channels, self.count[0], self.size[0], self.count[1], self.size[1])
        return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, self.size[0] * self.size[1])

    def join(self, windows: Tensor) -> Tensor:
        """Inverse of `cut`."""
        channels = windows.shape[1]
        x = windows.reshape(-1, *self.count, channels, *self.size).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(-1, channels, self.count[0] * self.size[0], self.count[1] * self.size[1])


class WindowConvAttention(nn.Module):
    """Attention within windows of maps [B, C, H, W]; a depthwise convolution across windows makes their queries."""

    def __init__(self, dim: int, num_heads: int, see_padding: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.see_padding = see_padding
        self.qkv = depthwise_projection(dim, 3 * dim, stride=1, bias=True)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        _, _, height, width = x.shape
        qkv = self.qkv(windows.pad(x)) if self.see_padding else windows.pad(self.qkv(x))
        parts = windows.cut(qkv).unflatten(0, (-1, math.prod(windows.count)))  # [B, nW, 3 * C, N]
        query, key, value = parts.unflatten(2, (3, self.num_heads, -1)).mT.unbind(2)
        mask = None
        if not self.see_padding and qkv.shape[2:] != (height, width):  # no window is all padding
            mask = windows.cut(windows.pad(query.new_zeros(1, 1, height, width), value=-math.inf))[:, :, None]
        query = query * self.num_heads**-0.5  # the scores are scaled by the whole width, not by that of a head
        attended = attend(query, key, value, mask).flatten(0, 1).mT
        return self.proj(windows.join(attended)[:, :, :height, :width])


class WindowBlock(nn.Module):
    """Windowed attention and a pixelwise MLP, each behind a norm and a residual path."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, see_padding: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim)
        self.attn = WindowConvAttention(dim, num_heads, see_padding)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = ChannelNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=QuickGELU, use_conv=True)

    def forward(self, x: Tensor, windows: Windows) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), windows))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class WindowStage(nn.Module):
    """A smaller map, then blocks that attend in the same windows."""

    def __init__(self, embed: ConvEmbed, blocks: Sequence[WindowBlock], window_size: int, see_padding: bool) -> None:
        super().__init__()
        self.patch_embed = embed
        self.blocks = Blocks(blocks)
        self.window_size = window_size
        self.see_padding = see_padding

    def forward(self, x: Tensor) -> list[Tensor]:
        """The map after every block."""
        x = self.patch_embed(x)
        cut = Windows.square if self.see_padding else Windows.evenly_wide
        windows = cut((x.shape[2], x.shape[3]), self.window_size)
        maps = []
        for block in self.blocks:
            x = self.blocks.run(block, x, windows)
            maps.append(x)
        return maps


@dataclass(frozen=True)
class CvTWindowedOptions(StagedOptions):
    """Options of a windowed CvT; the defaults are EsViT's `cvt_tiny`.

    Attributes:
        dims: width of each stage; the last one is the network's `embed_dim`.
        kernel_sizes: odd side of each stage's first convolution, px of its input.
        strides: reduction of each stage; the first is that of the images.
        num_heads: attention heads of each stage.
        depths: blocks of each stage.
        window_size: largest side of a window, pixels of the map.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.
        padding: "clamp" for windows no larger than the map and evenly wide; "reference" for the authors': maps padded
            to whole windows, and the padding attended to.
        stages: keep the first few; None for all.

    Raises: InputError as `StagedOptions`, or if a stage's width is not a multiple of its heads.
    """

    dims: Counts = (64, 192, 384, 768)
    kernel_sizes: Counts = (7, 3, 3, 3)
    strides: Counts = (4, 2, 2, 2)
    num_heads: Counts = (1, 3, 6, 12)
    depths: Counts = (2, 2, 6, 2)
    window_size: Count = 7
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1
    padding: Literal["clamp", "reference"] = "clamp"
    stages: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.dims, self.num_heads)


class CvTWindowed(MapBackbone):
    """Convolutional transformer with windowed attention and no class token; the defaults are EsViT's `cvt_tiny`.

    The regions are the pixels of the last map after the final LayerNorm, the view is their mean. Windows do not shift:
    depthwise convolutions carry information across their borders.

    padding:
        "clamp": windows evenly wide and no larger than the map; padding (less than one pixel per window) takes no part
            in the attention or in batch-norm statistics.
        "reference": square windows on maps padded with zeros, which are attended to and enter the statistics. Equal to
            the reference for image sides that are multiples of 4 px.

    Source: EsViT (Li et al. 2021), cvt_v4 without relative positions: QuickGELU, attention scaled by the whole width,
    drop path linear over all blocks. Differs: "clamp" is ours; an image side that is not a multiple of the first stride
    is padded with zeros (the reference's stem drops up to 2 px of it).
    """

    options_type = CvTWindowedOptions
    options: CvTWindowedOptions

    def __init__(self, in_channels: int, options: CvTWindowedOptions = CvTWindowedOptions()) -> None:
        """Builds the network with random weights."""
        stages = options.kept()
        super().__init__(in_channels, stages[-1].dim, math.prod(stage.stride for stage in stages))
        self.options = options
        see_padding = options.padding == "reference"
        rates = drop_rates(options.drop_path, [stage.depth for stage in stages])
        self.layers = nn.ModuleList()
        before = in_channels
        for stage, stage_rates in zip(stages, rates, strict=True):
            embed = ConvEmbed(before, stage.dim, stage.kernel_size, stage.stride)
            blocks = [
                WindowBlock(stage.dim, stage.num_heads, options.mlp_ratio, rate, see_padding) for rate in stage_rates
            ]
            self.layers.append(WindowStage(embed, blocks, options.window_size, see_padding))
            before = stage.dim
        self.norm = ChannelNorm(self.embed_dim)
        self.apply(_initialize)

    def stages(self, images: Tensor) -> list[Tensor]:
        maps = [stage_maps[-1] for stage_maps in self._block_maps(images)]
        return [*maps[:-1], self.norm(maps[-1])]

    def last_blocks(self, images: Tensor, count: int) -> Tensor:
        """Pixel means of the last `count` blocks [B, sum of their widths], the features of EsViT's linear probe.

        The final norm is applied to the blocks of the last stage only, as in the reference.
        """
        *earlier, last = self._block_maps(images)
        maps = [block_map for stage_maps in earlier for block_map in stage_maps] + [self.norm(m) for m in last]
        return torch.cat([block_map.mean(dim=(2, 3)) for block_map in maps[-count:]], dim=1)

    def head(self, num_outputs: int) -> nn.Module:
        head = nn.Linear(self.embed_dim, num_outputs)
        _initialize(head)
        return head

    def _block_maps(self, images: Tensor) -> list[list[Tensor]]:
        """The map [B, C, h, w] after every block of every stage."""
        self.check_images(images)
        x = images
        maps = []
        for stage in self.layers:
            maps.append(stage(x))
            x = maps[-1][-1]
        return maps


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


VARIANTS = {"cvt_windowed": CvTWindowedOptions()}
FAMILY = Family(CvTWindowed, VARIANTS)
