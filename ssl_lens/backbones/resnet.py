"""Residual convolutional network on timm's blocks, with a stem for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from timm.models.resnet import BasicBlock, Bottleneck, downsample_conv
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.options import Count, Counts, Family, Options, check_stages
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class ResNetOptions(Options):
    """Options of a ResNet.

    Attributes:
        width: channels of the first stage, four times as many outside its blocks if those are bottlenecks; the
            network's `embed_dim` is `width * 2 ** (stages - 1)`, times four likewise.
        depths: blocks of each stage.
        strides: 2 for each stage that halves the map, 1 for one that keeps it; None: all but the first halve it.
        stem_stride: 1 or 2 for a 3x3 convolution, 4 for 7x7 with stride 2 and a max pooling.
        block: "basic" for two 3x3 convolutions, "bottleneck" for 1x1, 3x3 and 1x1.
        stages: keep the first few; None for all.

    Raises: InputError if depths is empty, depths, strides and stages do not fit together, or as `Options`.
    """

    width: Count = 64
    depths: Counts = (2, 2, 2, 2)
    strides: tuple[Literal[1, 2], ...] | None = None
    stem_stride: Literal[1, 2, 4] = 1
    block: Literal["basic", "bottleneck"] = "basic"
    stages: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.depths:
            raise InputError("depths=[] of the ResNet is not possible; give each stage 1 block or more")
        if self.strides is not None and len(self.strides) != len(self.depths):
            raise InputError(
                f"strides={list(self.strides)} with depths={list(self.depths)} of the ResNet is impossible; "
                "give 1 or 2 per stage"
            )
        check_stages(self.stages, self.depths)


class ResNet(MapBackbone):
    """ResNet: each stage after the first doubles the channels and, by default, halves the map.

    The regions are the pixels of the last map, `stem_stride * prod(strides)` px apart: with stem_stride=1 and the
    other defaults a 64 px crop keeps 8x8 regions. With stem_stride=4 it is ResNet-18, with depths (3, 4, 6, 3) too
    ResNet-34, with block="bottleneck" too ResNet-50 (its stride in the 3x3 convolution, as timm and torchvision).

    Source: He et al. 2016, blocks and initialisation from timm. Differs: any width, number of stages and strides; a
    3x3 stem without max pooling below stem_stride=4; the last norm of a block starts at 1, not 0, so that the
    untrained network uses all its layers.
    """

    options_type = ResNetOptions
    options: ResNetOptions

    def __init__(self, in_channels: int, options: ResNetOptions = ResNetOptions()) -> None:
        """Builds the network with random weights."""
        width, stem_stride = options.width, options.stem_stride
        depths = options.depths[: options.stages]
        strides: Sequence[int] = (options.strides or [1] + [2] * (len(depths) - 1))[: options.stages]
        kind = Bottleneck if options.block == "bottleneck" else BasicBlock
        widths = [width * 2**stage for stage in range(len(depths))]
        super().__init__(in_channels, widths[-1] * kind.expansion, stem_stride * math.prod(strides))
        self.options = options
        kernel_size = 7 if stem_stride == 4 else 3
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size, min(stem_stride, 2), padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1) if stem_stride == 4 else nn.Identity(),
        )
        entering = [width, *(stage_width * kind.expansion for stage_width in widths[:-1])]
        self.layers = nn.ModuleList(
            _stage(kind, *stage) for stage in zip(entering, widths, depths, strides, strict=True)
        )
        self.apply(_initialize)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.stem(images)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


def _stage(
    kind: type[BasicBlock] | type[Bottleneck], channels: int, width: int, depth: int, stride: int
) -> nn.Sequential:
    """`depth` blocks of `width * kind.expansion` channels from `channels`, the first with the stride."""
    outer = width * kind.expansion
    changes = stride > 1 or channels != outer
    shortcut = downsample_conv(channels, outer, 1, stride=stride) if changes else None
    first = kind(channels, width, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(kind(outer, width) for _ in range(depth - 1)))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


VARIANTS = {
    "resnet18": ResNetOptions(stem_stride=4),
    "resnet34": ResNetOptions(depths=(3, 4, 6, 3), stem_stride=4),
    "resnet50": ResNetOptions(depths=(3, 4, 6, 3), stem_stride=4, block="bottleneck"),
    "resnet_micro": ResNetOptions(width=32, depths=(1, 1, 1), strides=(1, 2, 1), stem_stride=2),
}
FAMILY = Family(ResNet, VARIANTS)
