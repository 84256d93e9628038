"""The small convolutional transformer of the lens literature, with the stage and head its equivariant form shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from timm.layers import LayerNorm2d, Mlp
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.options import Count, Counts, Family, Options, Ratio, check_stages
from ssl_lens.errors import InputError

ChannelNorm = partial(LayerNorm2d, eps=1e-5)  # over the channels of each pixel; timm's default is 1e-6


class ConvAttention(nn.Module):
    """Attention over the pixels of a map; a depthwise convolution makes queries, and one with a stride keys and values.

    Maps [B, C, H, W] to the same shape. With a key/value stride of 2, four times fewer pixels are attended to.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int = 64, kv_stride: int = 2) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        self.to_q = depthwise_projection(dim, inner, stride=1)
        self.to_kv = depthwise_projection(dim, 2 * inner, stride=kv_stride)
        self.to_out = nn.Conv2d(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        query = self.to_q(x).unflatten(1, (self.num_heads, -1)).flatten(3)  # [B, heads, head_dim, H * W]
        key, value = self.to_kv(x).unflatten(1, (2, self.num_heads, -1)).flatten(4).unbind(1)
        return self.to_out(attend(query.mT, key.mT, value.mT).mT.unflatten(2, size))


class ConvBlock(nn.Module):
    """Convolutional attention and a pixelwise MLP, each behind a norm and a residual path."""

    def __init__(
        self, dim: int, num_heads: int, head_dim: int = 64, kv_stride: int = 2, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim)
        self.attn = ConvAttention(dim, num_heads, head_dim, kv_stride)
        self.norm2 = ChannelNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), use_conv=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ConvStage(nn.Sequential):
    """A strided convolution with a channel norm, then `depth` blocks: [B, C, H, W] to [B, dim, ceil(H/s), ceil(W/s)]"""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        kernel_size: int,
        stride: int,
        num_heads: int,
        depth: int,
        mlp_ratio: float = 4.0,
        head_dim: int = 64,
        kv_stride: int = 2,
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, dim, kernel_size, stride, padding=kernel_size // 2),
            ChannelNorm(dim),
            *(ConvBlock(dim, num_heads, head_dim, kv_stride, mlp_ratio) for _ in range(depth)),
        )


class StageArguments(NamedTuple):
    """One stage of a CvT: width, side and stride of its first convolution, heads and number of its blocks."""

    dim: int
    kernel_size: int
    stride: int
    num_heads: int
    depth: int


@dataclass(frozen=True)
class StagedOptions(Options):
    """What the options of every CvT have; its own give the defaults and the documentation.

    Raises: InputError unless all stages are described, each kernel is odd and no smaller than its stride, and there are
        as many stages as are to be kept; or as `Options`.
    """

    dims: Counts
    kernel_sizes: Counts
    strides: Counts
    num_heads: Counts
    depths: Counts
    stages: Count | None

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = {name: list(getattr(self, name)) for name in ("dims", "kernel_sizes", "strides", "num_heads", "depths")}
        if not self.dims or len({len(values) for values in lists.values()}) > 1:
            given = ", ".join(f"{name}={values}" for name, values in lists.items())
            raise InputError(f"{given} of the CvT do not fit; give each one value per stage")
        pairs = zip(self.kernel_sizes, self.strides, strict=True)
        if any(kernel % 2 == 0 or kernel < stride for kernel, stride in pairs):
            raise InputError(
                f"kernel_sizes={lists['kernel_sizes']} with strides={lists['strides']} of the CvT would skip pixels or "
                "shift the map; use odd kernels no smaller than their stride"
            )
        check_stages(self.stages, self.depths)

    def kept(self) -> list[StageArguments]:
        """The stages that are kept, one by one."""
        lists = self.dims, self.kernel_sizes, self.strides, self.num_heads, self.depths
        return [StageArguments(*values) for values in zip(*lists, strict=True)][: self.stages]


@dataclass(frozen=True)
class CvTLensOptions(StagedOptions):
    """Options of the lens literature's CvT; the defaults are `cvt_small_lens`.

    Attributes:
        dims: width of each stage; the last one is the network's `embed_dim`.
        kernel_sizes: odd side of each stage's first convolution, px of its input.
        strides: reduction of each stage; the first is that of the images.
        num_heads: attention heads of each stage.
        depths: blocks of each stage.
        mlp_ratio: hidden over outer width of the MLPs.
        head_dim: width of each attention head.
        kv_stride: stride of the convolution that makes keys and values.
        stages: keep the first few; None for all.

    Raises: InputError as `StagedOptions`.
    """

    dims: Counts = (64, 128)
    kernel_sizes: Counts = (7, 3)
    strides: Counts = (4, 2)
    num_heads: Counts = (2, 3)
    depths: Counts = (2, 1)
    mlp_ratio: Ratio = 4.0
    head_dim: Count = 64
    kv_stride: Count = 2
    stages: Count | None = None


class CvTLens(MapBackbone):
    """Convolutional vision transformer without class token or final norm; the defaults are `cvt_small_lens`.

    The regions are the pixels of the last stage, the view is their mean. 463,106 parameters with `head(2)` at one
    channel.

    Source: Wu et al. 2021 in the implementation of vit-pytorch (Phil Wang), as the lens literature uses it, with its
    dropout of 0. Differs: any number of stages and channels.
    """

    options_type = CvTLensOptions
    options: CvTLensOptions

    def __init__(self, in_channels: int, options: CvTLensOptions = CvTLensOptions()) -> None:
        """Builds the network with random weights."""
        stages = options.kept()
        super().__init__(in_channels, stages[-1].dim, math.prod(stage.stride for stage in stages))
        self.options = options
        self.layers = nn.ModuleList(
            ConvStage(
                before, *stage, mlp_ratio=options.mlp_ratio, head_dim=options.head_dim, kv_stride=options.kv_stride
            )
            for before, stage in zip([in_channels, *(stage.dim for stage in stages)], stages, strict=False)
        )

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = images
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps

    def head(self, num_outputs: int) -> nn.Module:
        return lens_head(self.embed_dim, self.embed_dim, num_outputs)


def lens_head(dim: int, hidden: int, num_outputs: int) -> nn.Sequential:
    """The classifier of the lens literature's small networks: [B, dim] to [B, num_outputs]."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.ELU(), nn.Linear(hidden, num_outputs))


def depthwise_projection(channels: int, width: int, stride: int, bias: bool = False) -> nn.Sequential:
    """A 3x3 convolution of each channel for itself, batch norm, and a 1x1 convolution to `width` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, width, 1, bias=bias),
    )


VARIANTS = {"cvt_small_lens": CvTLensOptions()}
FAMILY = Family(CvTLens, VARIANTS)
