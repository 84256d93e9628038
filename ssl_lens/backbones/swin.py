"""Swin transformer on timm's parts, at any image size, with windows that fit small maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath, PatchEmbed
from timm.models import swin_transformer as timm_swin
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone, SizeRule
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.products import Mlp, norm_linear
from ssl_lens.backbones.layers.residual import add_path
from ssl_lens.backbones.layers.stages import doubling_dims, drop_rates
from ssl_lens.backbones.layers.token_groups import Groups, attend_in_groups, even_groups
from ssl_lens.backbones.layers.tokens import LayerNorm, initialize_linear
from ssl_lens.backbones.options import Bounds, Count, Counts, Family, Options, Rate, Ratio, check_stages
from ssl_lens.errors import InputError

MASKED = -100.0  # in place of the bias of two tokens that are apart, as in the reference
REFERENCE_SIZE = 224  # px; the reference fixes its windows and shifts at construction, by default for this size


class WindowAttention(timm_swin.WindowAttention):
    """timm's window attention, for any window up to the size its bias table was built for."""

    relative_position_index: Tensor

    def position_bias(self, window: tuple[int, int]) -> Tensor:
        """Relative position bias [heads, N, N] of a window of N = height * width tokens."""
        rows, columns = self.window_size
        height, width = window
        index = self.relative_position_index.view(rows, columns, rows, columns)[:height, :width, :height, :width]
        bias = self.relative_position_bias_table.T.index_select(1, index.reshape(-1))
        return bias.view(self.num_heads, height * width, height * width)

    def forward(  # type: ignore[override]  # the windows may differ from call to call
        self, x: Tensor, windows: Groups, apart: Tensor | None
    ) -> Tensor:
        """Attention within each window of a map [B, H, W, C], but of tokens that are `apart` [nW, 1, N, N], if any."""
        bias = self.position_bias(windows.size)
        bias = bias if apart is None else bias.masked_fill(apart, MASKED)
        return self.proj(attend_in_groups(x, windows, self.qkv, self.num_heads, bias))


class SwinBlock(nn.Module):
    """Window attention and MLP, each behind a norm and a residual path; parameters are named as timm's."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size=window_size)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor, windows: Groups, apart: Tensor | None) -> Tensor:
        """Maps [B, H, W, C] to the same shape; the rest as in `WindowAttention`."""
        x = add_path(x, self.attn(self.norm1(x), windows, apart), self.drop_path1)
        return add_path(x, self.mlp(x, self.norm2), self.drop_path2)


class PatchMerging(timm_swin.PatchMerging):
    """timm's merging of 2x2 tokens, whose norm is computed a second time in backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), 2 * C]; odd ones are padded with zeros."""
        assert isinstance(self.norm, nn.LayerNorm)
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return norm_linear(x, self.norm, self.reduction)


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        reference_side: int | None,
        mlp_ratio: float,
        drop_path: Sequence[float],
        downsample: bool,
    ) -> None:
        """`reference_side` is the map's side at the size a "reference" network was made for; None: clamped windows."""
        super().__init__()
        self.clamp = reference_side is None
        self.window_size = window_size if reference_side is None else min(window_size, reference_side)
        self.shift = 0 if reference_side is not None and reference_side <= window_size else self.window_size // 2
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            self.downsample = PatchMerging(dim // 2, dim, norm_layer=LayerNorm)  # type: ignore[arg-type]
        self.blocks = Blocks(SwinBlock(dim, num_heads, self.window_size, mlp_ratio, rate) for rate in drop_path)

    def window_and_shift(self, side: int) -> tuple[int, int]:
        """Window and shift in tokens along an axis of `side` tokens."""
        if not self.clamp:
            return self.window_size, self.shift
        window, count = even_groups(side, self.window_size)
        return window, window // 2 if count > 1 else 0

    def forward(self, x: Tensor) -> list[Tensor]:
        """The map [B, H, W, C] after every block."""
        x = self.downsample(x)
        size = x.shape[1], x.shape[2]
        window, shift = zip(*(self.window_and_shift(side) for side in size), strict=True)
        count = tuple(-(-side // w) for side, w in zip(size, window, strict=True))
        groups = [Groups(window, count), Groups(window, count, shift=shift)]
        # the reference lets tokens attend to the padding
        apart = [_apart(windows, size if self.clamp else windows.padded, x.device) for windows in groups]
        maps = []
        for i, block in enumerate(self.blocks):
            x = self.blocks.run(block, x, groups[i % 2], apart[i % 2])
            maps.append(x)
        return maps


@dataclass(frozen=True)
class SwinOptions(Options):
    """Options of a Swin; the defaults are Swin-T.

    Attributes:
        embed_dim: channels of the first stage (the network's `embed_dim` is the last one's).
        depths: blocks of each stage; 2 to 4 stages.
        num_heads: attention heads of each stage.
        patch_size: side of a token of the first stage, px.
        window_size: side of a window, tokens; the largest one with "clamp".
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.
        padding: "clamp" for windows no larger than the map and evenly wide; "reference" for the authors': maps padded
            to whole windows, and the padding attended to.
        reference_size: side of the images that a "reference" network was made for, px; its windows and shifts are fixed
            by it. None for 224.
        stages: keep the first few, 2 or more; None for all.

    Raises: InputError if depths, num_heads, embed_dim and stages do not fit together, or as `Options`.
    """

    embed_dim: Count = 96
    depths: Counts = (2, 2, 6, 2)
    num_heads: Counts = (3, 6, 12, 24)
    patch_size: Count = 4
    window_size: Count = 7
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1
    padding: Literal["clamp", "reference"] = "clamp"
    reference_size: Count | None = None
    stages: Annotated[int, Bounds(2)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= len(self.depths) <= 4 or len(self.num_heads) != len(self.depths):
            raise InputError(
                f"depths={list(self.depths)}, num_heads={list(self.num_heads)} do not fit; give both 2 to 4 stages"
            )
        doubling_dims(self.embed_dim, self.depths, self.num_heads)
        check_stages(self.stages, self.depths)
        if self.reference_size is not None and self.padding != "reference":
            raise InputError(
                f"reference_size={self.reference_size} does nothing with padding={self.padding!r}; "
                "remove it or use padding='reference'"
            )


class Swin(MapBackbone):
    """Swin transformer: windowed attention on maps that halve from stage to stage.

    The regions are the tokens of the last stage after the final LayerNorm, the view is their mean. Parameters are named
    as in timm's SwinTransformer, so its state dict loads (without the head).

    padding:
        "clamp": windows no larger than the map and evenly wide, shifted only where there are several, padding (less
            than one token per window) masked out. The choice for small images: a 1x1 map stays 1x1.
        "reference": maps are padded with zeros to whole windows, then rolled; padding takes part in the attention;
            windows and shifts are those of a network for images of `reference_size`. Equal to the reference at every
            size.

    Source: Liu et al. 2021, as in EsViT (Li et al. 2021): LayerNorm eps 1e-6, drop path linear over all blocks.
    Differs: "clamp" is ours; 2 to 4 stages and non-square images are allowed.
    """

    options_type = SwinOptions
    options: SwinOptions

    def __init__(self, in_channels: int, options: SwinOptions = SwinOptions()) -> None:
        """Builds the network with random weights."""
        depths, num_heads = options.depths[: options.stages], options.num_heads[: options.stages]
        dims = doubling_dims(options.embed_dim, depths, num_heads)
        super().__init__(in_channels, dims[-1], options.patch_size * 2 ** (len(depths) - 1))
        self.options = options
        self.patch_size = options.patch_size
        self.patch_embed = PatchEmbed(
            None,
            options.patch_size,
            in_channels,
            options.embed_dim,
            norm_layer=LayerNorm,
            output_fmt="NHWC",
            strict_img_size=False,
        )
        rates = drop_rates(options.drop_path, depths)
        reference_size = options.reference_size or REFERENCE_SIZE
        self.layers = nn.ModuleList(
            SwinStage(
                dims[i],
                num_heads[i],
                options.window_size,
                reference_size // options.patch_size // 2**i if options.padding == "reference" else None,
                options.mlp_ratio,
                rates[i],
                downsample=i > 0,
            )
            for i in range(len(depths))
        )
        self.norm = LayerNorm(self.embed_dim)
        self.apply(initialize_linear)

    @property
    def accepted_sizes(self) -> str:
        return "any" if self.patch_size == 1 else f"multiples of {self.patch_size} px"

    @property
    def size_rule(self) -> SizeRule:
        return SizeRule(multiple=self.patch_size)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        patch = self.patch_size
        if height % patch or width % patch or not height or not width:
            nearest = [max(patch, round(side / patch) * patch) for side in (height, width)]
            raise InputError(
                f"image size {height}x{width} px is not a multiple of patch_size={patch}; "
                f"use {nearest[0]}x{nearest[1]} px or another patch_size"
            )
        return super().map_size(height, width)

    def stages(self, images: Tensor) -> list[Tensor]:
        maps = [stage_maps[-1] for stage_maps in self._block_maps(images)]
        maps[-1] = self.norm(maps[-1])
        return [stage_map.permute(0, 3, 1, 2) for stage_map in maps]

    def last_blocks(self, images: Tensor, count: int) -> Tensor:
        """Token means of the last `count` blocks [B, sum of their widths], the features of EsViT's linear probe.

        The final norm is applied to the blocks of the last stage only, as in the reference.
        """
        *earlier, last = self._block_maps(images)
        maps = [block_map for stage_maps in earlier for block_map in stage_maps] + [self.norm(m) for m in last]
        return torch.cat([block_map.mean(dim=(1, 2)) for block_map in maps[-count:]], dim=1)

    def _block_maps(self, images: Tensor) -> list[list[Tensor]]:
        """The map [B, h, w, C] after every block of every stage."""
        self.check_images(images)
        x = self.patch_embed(images)
        maps = []
        for stage in self.layers:
            maps.append(stage(x))
            x = maps[-1][-1]
        return maps


def _apart(windows: Groups, content: tuple[int, int], device: torch.device) -> Tensor | None:
    """Which tokens of a window do not see each other [nW, 1, N, N]: those that were rolled in, those that are padding
    (beyond `content`), and all others; None if all do."""
    if not any(windows.shift) and windows.padded == content:
        return None
    rows, columns = (
        (place >= side - shift) + 2 * (place >= inside - shift)
        for place, side, shift, inside in (
            (torch.arange(side, device=device), side, shift, inside)
            for side, shift, inside in zip(windows.padded, windows.shift, content, strict=True)
        )
    )
    labels = windows.cut((4 * rows[:, None] + columns)[None, :, :, None], 1, 1).view(-1, 1, math.prod(windows.size))
    return labels[..., :, None] != labels[..., None, :]


VARIANTS = {
    "swin_tiny": SwinOptions(),
    "swin_small": SwinOptions(depths=(2, 2, 18, 2)),
    "swin_base": SwinOptions(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "swin_micro": SwinOptions(embed_dim=48, depths=(2, 2, 2), num_heads=(2, 4, 8)),
}
FAMILY = Family(Swin, VARIANTS)
