"""Twins-SVT on timm's parts: attention in windows and to a subsampled map in turn, at any image size."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.twins import PosConv
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers import norms
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.stages import check_heads, drop_rates
from ssl_lens.backbones.layers.token_groups import GroupAttention, Groups
from ssl_lens.backbones.layers.tokens import LayerNorm, initialize_linear
from ssl_lens.backbones.options import Count, Counts, Family, Options, Rate, Ratio
from ssl_lens.backbones.vit import Block
from ssl_lens.errors import InputError


class WindowAttention(GroupAttention):
    """Attention within windows no larger than the map and evenly wide; parameters are named as timm's.

    Padding, less than one token per window and axis, is masked out.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        """`window_size` is the side of the largest window, in tokens."""
        super().__init__(dim, num_heads)
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # it makes its own bias
        """Map [B, h, w, C] to the same shape."""
        height, width = x.shape[1:3]
        windows = Groups.even(height, width, self.window_size)
        mask = windows.padding_mask(height, width, like=x)
        return super().forward(x, windows, mask)


class SubsampledAttention(nn.Module):
    """Attention of every token to a map that a strided convolution has shrunk; parameters are named as timm's.

    A map that is not a multiple of `reduction` is padded with zeros, so that every key sums up a token or more; timm
    drops what is left over.
    """

    def __init__(self, dim: int, num_heads: int, reduction: int) -> None:
        """`reduction` is the stride of the convolution, in tokens; 1 for none."""
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = norms.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, h, w, C] to the same shape."""
        size = x.shape[1:3]
        query = self.q(x).flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        if self.reduction > 1:
            x = F.pad(x, (0, 0, 0, -size[1] % self.reduction, 0, -size[0] % self.reduction))
            x = self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        key, value = self.kv(x).flatten(1, 2).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(query, key, value).unflatten(1, size))


@dataclass(frozen=True)
class TwinsOptions(Options):
    """Options of a Twins-SVT; the defaults are Twins-SVT-S.

    Attributes:
        embed_dim: channels of each stage (the network's `embed_dim` is the last one's); 1 stage or more.
        depths: blocks of each stage, the first, third, ... of them with windows.
        num_heads: attention heads of each stage.
        reductions: stride of each stage's subsampling, in tokens.
        patch_size: side of a token of the first stage, px.
        window_size: side of the largest window, tokens.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.

    Raises: InputError if embed_dim, depths, num_heads and reductions do not fit together, or as `Options`.
    """

    embed_dim: Counts = (64, 128, 256, 512)
    depths: Counts = (2, 2, 10, 4)
    num_heads: Counts = (2, 4, 8, 16)
    reductions: Counts = (8, 4, 2, 1)
    patch_size: Count = 4
    window_size: Count = 7
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = self.embed_dim, self.depths, self.num_heads, self.reductions
        if not self.embed_dim or len({len(values) for values in lists}) > 1:
            raise InputError(
                f"embed_dim={list(self.embed_dim)}, depths={list(self.depths)}, num_heads={list(self.num_heads)}, "
                f"reductions={list(self.reductions)} of the Twins do not fit; give each as many stages"
            )
        check_heads(self.embed_dim, self.num_heads)


class TwinsSVT(MapBackbone):
    """Twins-SVT: blocks with attention in windows alternate with blocks that attend to the whole, subsampled map.

    A depthwise convolution after each stage's first block tells the tokens where they are, at any size. The regions are
    the tokens of the last stage after the final LayerNorm, the view is their mean. Parameters are named as in timm's
    Twins, so its state dict loads (without the head).

    Source: Chu et al. 2021; the defaults are Twins-SVT-S. Differs: images and maps that the patches or the subsampling
    do not divide are padded with zeros at the bottom and the right; windows are no larger than the map, evenly wide,
    and their padding is masked out. timm cuts off what the former leave over and lets the padding take part in the
    attention. Both are equal where nothing is left over, at 224 px for one.
    """

    options_type = TwinsOptions
    options: TwinsOptions

    def __init__(self, in_channels: int, options: TwinsOptions = TwinsOptions()) -> None:
        """Builds the network with random weights."""
        embed_dim = options.embed_dim
        super().__init__(in_channels, embed_dim[-1], options.patch_size * 2 ** (len(embed_dim) - 1))
        self.options = options
        self.patch_embeds = nn.ModuleList()
        self.blocks = nn.ModuleList()
        self.pos_block = nn.ModuleList()
        rates = drop_rates(options.drop_path, options.depths)
        for i, (dim, heads) in enumerate(zip(embed_dim, options.num_heads, strict=True)):
            before, patch = (embed_dim[i - 1], 2) if i else (in_channels, options.patch_size)
            self.patch_embeds.append(
                PatchEmbed(None, patch, before, dim, norms.LayerNorm, output_fmt="NHWC", dynamic_img_pad=True)
            )
            blocks = Blocks()
            for j, rate in enumerate(rates[i]):
                attention = (
                    SubsampledAttention(dim, heads, options.reductions[i])
                    if j % 2
                    else WindowAttention(dim, heads, options.window_size)
                )
                blocks.append(Block(dim, attention, options.mlp_ratio, rate))
            self.blocks.append(blocks)
            self.pos_block.append(PosConv(dim, dim))
        self.norm = LayerNorm(self.embed_dim)
        self.apply(_initialize)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        maps = []
        x = images
        for patch_embed, blocks, position in zip(self.patch_embeds, self.blocks, self.pos_block, strict=True):
            assert isinstance(blocks, Blocks)
            x = patch_embed(x)
            for i, block in enumerate(blocks.children()):
                x = blocks.run(block, x)
                if i == 0:
                    x = position(x.flatten(1, 2), x.shape[1:3]).unflatten(1, x.shape[1:3])
            maps.append(x.permute(0, 3, 1, 2))
            x = maps[-1]
        maps[-1] = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps


def _initialize(module: nn.Module) -> None:
    initialize_linear(module)
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


VARIANTS = {"twins_svt": TwinsOptions()}
FAMILY = Family(TwinsSVT, VARIANTS)
