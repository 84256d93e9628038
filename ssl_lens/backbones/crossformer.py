"""CrossFormer: tokens that see several scales, attention among neighbours and across the map in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.norms import LayerNorm
from ssl_lens.backbones.layers.products import Mlp
from ssl_lens.backbones.layers.residual import add_path
from ssl_lens.backbones.layers.stages import doubling_dims, drop_rates
from ssl_lens.backbones.layers.token_groups import GroupAttention, Groups
from ssl_lens.backbones.layers.tokens import initialize_linear
from ssl_lens.backbones.options import Count, Counts, Family, Options, Rate, Ratio
from ssl_lens.errors import InputError

PATCH_KERNELS = (4, 8, 16, 32)  # px; the smallest is the stride too
MERGE_KERNELS = (2, 4)  # tokens
EXACT_KERNEL = 16  # px: the largest that processors convolve rightly in bfloat16
POSITION_WIDTH = 16  # the authors' position MLP is that many times narrower than the tokens


class DynamicPositionBias(nn.Module):
    """Bias of the attention scores from an MLP of the offset between two tokens of a group, whatever its size."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        width = dim // POSITION_WIDTH
        self.pos_proj = nn.Linear(2, width)
        self.pos1, self.pos2, self.pos3 = (
            nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, out)) for out in (width, width, num_heads)
        )

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Bias [heads, N, N] of queries and keys in a group of N = height * width tokens."""
        device, dtype = self.pos_proj.weight.device, self.pos_proj.weight.dtype
        down, across = (torch.arange(1 - side, side, device=device) for side in size)
        offsets = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).flatten(0, 1).to(dtype)
        table = self.pos3(self.pos2(self.pos1(self.pos_proj(offsets))))
        rows, columns = (torch.arange(side, device=device) for side in size)
        row = rows[:, None, None, None] - rows[:, None] + size[0] - 1
        column = columns[:, None, None] - columns + size[1] - 1
        index = row * (2 * size[1] - 1) + column  # query row, query column, key row, key column
        tokens = size[0] * size[1]
        return table[index.reshape(-1)].view(tokens, tokens, -1).permute(2, 0, 1)


class CrossFormerBlock(nn.Module):
    """Attention within groups and MLP, each behind a norm and a residual path."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.pos = DynamicPositionBias(dim, num_heads)
        self.attn = GroupAttention(dim, num_heads)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, groups: Groups) -> Tensor:
        """Maps [B, H, W, C] to the same shape."""
        height, width = x.shape[1:3]
        bias = self.pos(groups.size)
        mask = groups.padding_mask(height, width, like=bias)
        x = add_path(x, self.attn(self.norm1(x), groups, bias if mask is None else bias + mask), self.drop_path)
        return add_path(x, self.mlp(x, self.norm2), self.drop_path)


class CrossScaleEmbedding(nn.Module):
    """Convolutions of several kernels about the same points; the larger the kernel, the fewer its channels."""

    def __init__(self, in_channels: int, dim: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.stride = stride = min(kernels)
        widths = [dim // 2 ** (i + 1) for i in range(len(kernels) - 1)]
        self.projs = nn.ModuleList(
            nn.Conv2d(in_channels, width, kernel, stride, padding=(kernel - stride) // 2)
            for kernel, width in zip(kernels, [*widths, widths[-1]], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to a map [B, dim, H / stride, W / stride], rounded up: zeros complete the bottom and right."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        return torch.cat([_convolved(proj, x) for proj in self.projs], dim=1)


def _convolved(conv: nn.Module, x: Tensor) -> Tensor:
    """The convolution of x; of large kernels on processors in float32 or wider, whatever is asked for.

    oneDNN gives noise for bfloat16 convolutions of 32x32 px on two channels (torch 2.15 on Intel's AMX), none of 16x16.
    """
    assert isinstance(conv, nn.Conv2d)
    if x.device.type != "cpu" or conv.kernel_size[0] <= EXACT_KERNEL:
        return conv(x)
    assert conv.bias is not None
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        wide = F.conv2d(x.to(dtype), conv.weight.to(dtype), conv.bias.to(dtype), conv.stride, conv.padding)
    return wide.to(x.dtype)


class PatchMerging(nn.Module):
    """Halves a map [B, H, W, C] and doubles its channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim // 2)
        self.embed = CrossScaleEmbedding(dim // 2, dim, MERGE_KERNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class CrossFormerStage(nn.Module):
    """Blocks at one resolution, those at odd places with distant groups."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        group_size: int,
        mlp_ratio: float,
        drop_path: Sequence[float],
        downsample: bool,
    ) -> None:
        super().__init__()
        self.group_size = group_size
        self.downsample = PatchMerging(dim) if downsample else nn.Identity()
        self.blocks = Blocks(CrossFormerBlock(dim, num_heads, mlp_ratio, rate) for rate in drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        for i, block in enumerate(self.blocks):
            groups = Groups.even(x.shape[1], x.shape[2], self.group_size, distant=i % 2 == 1)
            x = self.blocks.run(block, x, groups)
        return x


@dataclass(frozen=True)
class CrossFormerOptions(Options):
    """Options of a CrossFormer; the defaults are CrossFormer-T.

    Attributes:
        embed_dim: channels of the first stage (the network's `embed_dim` is the last one's); a multiple of 16.
        depths: blocks of each stage.
        num_heads: attention heads of each stage.
        group_size: largest side of a group, tokens.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.

    Raises: InputError if depths, num_heads and embed_dim do not fit together, or as `Options`.
    """

    embed_dim: Count = 64
    depths: Counts = (1, 1, 8, 6)
    num_heads: Counts = (2, 4, 8, 16)
    group_size: Count = 7
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embed_dim % POSITION_WIDTH:
            raise InputError(f"embed_dim={self.embed_dim} of the CrossFormer is not possible; use a multiple of 16")
        doubling_dims(self.embed_dim, self.depths, self.num_heads)


class CrossFormer(MapBackbone):
    """CrossFormer: attention within groups of neighbours and of distant tokens in turn, maps that halve by stage.

    The regions are the tokens of the last stage after the final LayerNorm, the view is their mean. Along each axis a
    map of L tokens has n = ceil(L / group_size) groups of ceil(L / n) tokens: neighbours in blocks at even places,
    every n-th token of the map in those at odd places. At 224 px and group_size 7 these are the published intervals
    n = 8, 4, 2, 1; on maps no larger than a group both kinds are attention over the whole map.

    Source: Wang et al. 2021 (ICLR 2022), code cheerss/CrossFormer; equal to it at 224 px, as it keeps the group's size
    there and not, as in its detection code, the interval. Differs: any image size. Images are completed with zeros to
    multiples of 4 px, odd maps to even ones before they are merged, maps to whole groups, where the padding is masked
    out of the attention.
    """

    options_type = CrossFormerOptions
    options: CrossFormerOptions

    def __init__(self, in_channels: int, options: CrossFormerOptions = CrossFormerOptions()) -> None:
        """Builds the network with random weights."""
        embed_dim, depths, num_heads = options.embed_dim, options.depths, options.num_heads
        dims = doubling_dims(embed_dim, depths, num_heads)
        super().__init__(in_channels, dims[-1], min(PATCH_KERNELS) * 2 ** (len(depths) - 1))
        self.options = options
        self.patch_embed = CrossScaleEmbedding(in_channels, embed_dim, PATCH_KERNELS)
        self.patch_norm = LayerNorm(embed_dim)
        rates = drop_rates(options.drop_path, depths)
        self.layers = nn.ModuleList(
            CrossFormerStage(dims[i], num_heads[i], options.group_size, options.mlp_ratio, rates[i], downsample=i > 0)
            for i in range(len(depths))
        )
        self.norm = LayerNorm(self.embed_dim)
        self.apply(initialize_linear)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.patch_norm(self.patch_embed(images).permute(0, 2, 3, 1))
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        maps[-1] = self.norm(x)
        return [stage_map.permute(0, 3, 1, 2) for stage_map in maps]


VARIANTS = {
    "crossformer_tiny": CrossFormerOptions(),
    "crossformer_small": CrossFormerOptions(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), drop_path=0.2),
}
FAMILY = Family(CrossFormer, VARIANTS)
