"""The small convolutional transformer of the lens literature, with the stage and head its equivariant form shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from timm.layers import LayerNorm2d, Mlp
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.backbones.layers.attention import attend
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


class CvTLens(Backbone):
    """Convolutional vision transformer without class token or final norm; the defaults are `cvt_small_lens`.

    The regions are the pixels of the last stage, the view is their mean. 463,106 parameters with `head(2)` at one
    channel.

    Source: Wu et al. 2021 in the implementation of vit-pytorch (Phil Wang), as the lens literature uses it, with its
    dropout of 0. Differs: any number of stages and channels.
    """

    def __init__(
        self,
        in_channels: int,
        dims: Sequence[int] = (64, 128),
        kernel_sizes: Sequence[int] = (7, 3),
        strides: Sequence[int] = (4, 2),
        num_heads: Sequence[int] = (2, 3),
        depths: Sequence[int] = (2, 1),
        mlp_ratio: float = 4.0,
        head_dim: int = 64,
        kv_stride: int = 2,
    ) -> None:
        """Builds the network with random weights.

        Args:
            in_channels: channels of the images.
            dims: width of each stage; the last one is `embed_dim`.
            kernel_sizes: odd side of each stage's first convolution, px of its input.
            strides: reduction of each stage.
            num_heads: attention heads of each stage.
            depths: blocks of each stage.
            mlp_ratio: hidden over outer width of the MLPs.
            head_dim: width of each attention head.
            kv_stride: stride of the convolution that makes keys and values.

        Raises: InputError for arguments that `stage_arguments` refuses.
        """
        stages = stage_arguments(dims, kernel_sizes, strides, num_heads, depths)
        super().__init__(in_channels, dims[-1], math.prod(strides))
        self._config = {
            "in_channels": in_channels,
            **stages,
            "mlp_ratio": mlp_ratio,
            "head_dim": head_dim,
            "kv_stride": kv_stride,
        }
        self.layers = nn.ModuleList(
            ConvStage(*stage, mlp_ratio=mlp_ratio, head_dim=head_dim, kv_stride=kv_stride)
            for stage in zip((in_channels, *dims[:-1]), dims, kernel_sizes, strides, num_heads, depths, strict=True)
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


def stage_arguments(
    dims: Sequence[int],
    kernel_sizes: Sequence[int],
    strides: Sequence[int],
    num_heads: Sequence[int],
    depths: Sequence[int],
) -> dict[str, list[int]]:
    """What the stages of any CvT are built of, ready for JSON.

    Raises: InputError unless all have the same length and each kernel is odd and no smaller than its stride.
    """
    stages = {
        "dims": list(dims),
        "kernel_sizes": list(kernel_sizes),
        "strides": list(strides),
        "num_heads": list(num_heads),
        "depths": list(depths),
    }
    if not dims or len({len(values) for values in stages.values()}) > 1:
        given = ", ".join(f"{name}={values}" for name, values in stages.items())
        raise InputError(f"{given} of the CvT do not fit; give each one value per stage")
    if any(kernel % 2 == 0 or kernel < stride for kernel, stride in zip(kernel_sizes, strides, strict=True)):
        raise InputError(
            f"kernel_sizes={list(kernel_sizes)} with strides={list(strides)} of the CvT would skip pixels or shift the "
            "map; use odd kernels no smaller than their stride"
        )
    return stages


def depthwise_projection(channels: int, width: int, stride: int, bias: bool = False) -> nn.Sequential:
    """A 3x3 convolution of each channel for itself, batch norm, and a 1x1 convolution to `width` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, width, 1, bias=bias),
    )
