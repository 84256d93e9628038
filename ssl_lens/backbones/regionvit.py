"""RegionViT: regional tokens attend to each other, local tokens within their region and to its token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerNorm2d, trunc_normal_
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, MapBackbone
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.products import Mlp
from ssl_lens.backbones.layers.stages import doubling_dims, drop_rates
from ssl_lens.backbones.layers.token_groups import GroupAttention, Groups
from ssl_lens.backbones.layers.tokens import LayerNorm, initialize_linear
from ssl_lens.backbones.options import Count, Counts, Family, Options, Rate, Ratio
from ssl_lens.errors import InputError

MapNorm = partial(LayerNorm2d, eps=1e-5)  # the authors' norm of maps keeps another eps than that of tokens
LOCAL_PATCH = 4  # px


class RegionBlock(nn.Module):
    """Attention among regional tokens, then within each region together with its token, then an MLP on all of them."""

    def __init__(self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.window_size = window_size
        self.norm0 = LayerNorm(dim)
        self.norm1 = LayerNorm(dim)
        self.attn = GroupAttention(dim, num_heads)  # the authors use the same weights in both attentions
        self.rel_pos = nn.Parameter(trunc_normal_(torch.empty(num_heads, (2 * window_size - 1) ** 2), std=0.02))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, regions: Tensor, local: Tensor, window: tuple[int, int], mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Regional tokens [B, R, C], their local ones [B, R, N, C]; additive mask of keys [R, 1, 1, 1 + N] or None."""
        everywhere = Groups((1, regions.shape[1]), (1, 1))
        regions = regions + self.drop_path(self.attn(self.norm0(regions)[:, None], everywhere, None)[:, 0])
        bias = F.pad(self.position_bias(window), (1, 0, 1, 0))  # none for the regional token
        bias = bias if mask is None else bias + mask
        x = torch.cat((regions[:, :, None], local), dim=2)
        each = Groups((1, x.shape[2]), (x.shape[1], 1))  # a row of [B, R, 1 + N, C]
        x = x + self._drop_per_region(self.attn(self.norm1(x), each, bias))
        x = x + self._drop_per_region(self.mlp(x, self.norm2))
        return x[:, :, 0], x[:, :, 1:]

    def position_bias(self, window: tuple[int, int]) -> Tensor:
        """Bias [heads, N, N] of queries and keys in a window of N = height * width tokens."""
        span = 2 * self.window_size - 1
        down, across = (torch.arange(side, device=self.rel_pos.device) for side in window)
        # the authors' table begins at offset -(window_size // 2), not -(window_size - 1), and wraps around
        row = (down[:, None] - down[:, None, None, None] + self.window_size // 2) % span
        column = (across - across[:, None, None] + self.window_size // 2) % span
        index = row * span + column  # query row, query column, key row, key column
        tokens = window[0] * window[1]
        return self.rel_pos[:, index.reshape(-1)].view(-1, tokens, tokens)

    def _drop_per_region(self, x: Tensor) -> Tensor:
        """Drop path of [B, R, 1 + N, C], independent for each region as in the authors' code."""
        return self.drop_path(x.flatten(0, 1)).view_as(x)


class RegionStage(nn.Module):
    """Blocks at one resolution; regional and local maps are halved by the same convolution."""

    def __init__(
        self, dim: int, num_heads: int, window_size: int, mlp_ratio: float, drop_path: Sequence[float], downsample: bool
    ) -> None:
        super().__init__()
        self.downsample: nn.Module = nn.Identity()
        if downsample:
            convolution = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1, groups=dim // 2)
            self.downsample = nn.Sequential(MapNorm(dim // 2), nn.GELU(), convolution)
        self.blocks = Blocks(RegionBlock(dim, num_heads, window_size, mlp_ratio, rate) for rate in drop_path)

    def forward(self, regions: Tensor, local: Tensor, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Regional map [B, C, r, s] and local map [B, C, h, w], halved if this stage does so."""
        regions, local = self.downsample(regions), self.downsample(local)
        count, (height, width) = (regions.shape[2], regions.shape[3]), local.shape[2:]
        size = (height if count[0] == 1 else window[0], width if count[1] == 1 else window[1])
        groups = Groups(size, count)
        mask = groups.padding_mask(height, width, like=local)
        mask = None if mask is None else F.pad(mask, (1, 0))  # a regional token is never padding
        regions, local = regions.flatten(2).transpose(1, 2), groups.gather(local.permute(0, 2, 3, 1))
        for block in self.blocks:
            regions, local = self.blocks.run(block, regions, local, groups.size, mask)
        regions = regions.transpose(1, 2).unflatten(2, count)
        return regions, groups.scatter(local, height, width).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RegionViTOptions(Options):
    """Options of a RegionViT; the defaults are RegionViT-Ti.

    Attributes:
        embed_dim: channels of the first stage (the network's `embed_dim` is the last one's); a multiple of 4.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        window_size: largest side of a region, local tokens.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.

    Raises: InputError if depths, num_heads and embed_dim do not fit together, or as `Options`.
    """

    embed_dim: Count = 64
    depths: Counts = (2, 2, 8, 2)
    num_heads: Counts = (2, 4, 8, 16)
    window_size: Count = 7
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % 4:
            raise InputError(f"embed_dim={self.embed_dim} of the RegionViT is not possible; use a multiple of 4")
        doubling_dims(self.embed_dim, self.depths, self.num_heads)


class RegionViT(MapBackbone):
    """RegionViT: few regional tokens carry information between the windows of many local tokens.

    The view is the mean of the regional tokens of the last stage after the final LayerNorm; regions and stage maps are
    the local tokens, the last ones after the same LayerNorm (the authors' classifier does not use them; with one norm
    view and regions share a scale).

    Along each axis a first map of L local tokens has R = ceil(L / window_size) regions of ceil(L / R) tokens; windows
    keep that side in later stages, where they and their regional tokens halve in number, and are the map itself once
    there is one. Padding at the bottom and right, less than a window in every stage, is masked out of the attention,
    and every region holds part of the image. Regional patches have side window_size * 4 px as published and begin
    where their window begins: they overlap where windows are smaller.

    Source: Chen, Panda and Fan 2021 (ICLR 2022), code IBM/RegionViT; equal to it at 224 px. Differs: any image size (at
    others the authors' windows keep 7 tokens, the regional patches see an image padded on all sides).
    """

    options_type = RegionViTOptions
    options: RegionViTOptions

    def __init__(self, in_channels: int, options: RegionViTOptions = RegionViTOptions()) -> None:
        """Builds the network with random weights."""
        embed_dim, depths, num_heads = options.embed_dim, options.depths, options.num_heads
        window_size = options.window_size
        dims = doubling_dims(embed_dim, depths, num_heads)
        super().__init__(in_channels, dims[-1], LOCAL_PATCH * 2 ** (len(depths) - 1))
        self.options = options
        self.window_size = window_size
        self.local_embed = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim // 4, 3, stride=2, padding=1),
            MapNorm(embed_dim // 4),
            nn.GELU(),
            nn.Conv2d(embed_dim // 4, embed_dim // 2, 3, stride=2, padding=1),
            MapNorm(embed_dim // 2),
            nn.GELU(),
            nn.Conv2d(embed_dim // 2, embed_dim, 3, padding=1),
        )
        self.region_embed = nn.Conv2d(in_channels, embed_dim, LOCAL_PATCH * window_size)
        rates = drop_rates(options.drop_path, depths)
        self.layers = nn.ModuleList(
            RegionStage(dims[i], num_heads[i], window_size, options.mlp_ratio, rates[i], downsample=i > 0)
            for i in range(len(depths))
        )
        self.norm = LayerNorm(self.embed_dim)
        self.apply(initialize_linear)

    def forward(self, images: Tensor) -> Features:
        regional, maps = self._maps(images)
        return Features(view=regional.mean(dim=(2, 3)), regions=maps[-1].flatten(2).transpose(1, 2))

    def stages(self, images: Tensor) -> list[Tensor]:
        return self._maps(images)[1]

    def _maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last regional map and the local map of every stage, the last of both after the final norm."""
        self.check_images(images)
        local = self.local_embed(images)
        windows = Groups.even(local.shape[2], local.shape[3], self.window_size)
        regions = self._embed_regions(images, windows)
        maps = []
        for layer in self.layers:
            regions, local = layer(regions, local, windows.size)
            maps.append(local)
        regions, maps[-1] = (self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for x in (regions, local))
        return regions, maps

    def _embed_regions(self, images: Tensor, windows: Groups) -> Tensor:
        """One token [B, C, R, S] per window, from a patch that begins where the window does."""
        stride = [LOCAL_PATCH * side for side in windows.size]
        covered = [
            (n - 1) * step + LOCAL_PATCH * self.window_size for n, step in zip(windows.count, stride, strict=True)
        ]
        images = F.pad(images, (0, covered[1] - images.shape[3], 0, covered[0] - images.shape[2]))
        return F.conv2d(images, self.region_embed.weight, self.region_embed.bias, stride)


VARIANTS = {"regionvit_tiny": RegionViTOptions()}
FAMILY = Family(RegionViT, VARIANTS)
