"""Residual convolutional network of basic blocks on timm's parts, with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from timm.models.resnet import BasicBlock, downsample_conv
from torch import Tensor, nn

from ssl_lens.errors import InputError
from ssl_lens.models.backbone import Backbone


class ResNet(Backbone):
    """ResNet of basic blocks: each stage after the first halves the map and doubles the channels.

    The regions are the pixels of the last map, `stem_stride * 2 ** (len(depths) - 1)` px apart: with the default stem
    and 4 stages a 64 px crop keeps 8x8 regions. `width=64, depths=(2, 2, 2, 2), stem_stride=4` is ResNet-18.

    Source: He et al. 2016, blocks and initialisation from timm. Differs: any width and number of stages; a 3x3 stem
    where the stride is 1, and no max pooling below stride 4; the last norm of a block starts at 1, not 0, so that
    the untrained network uses all its layers.
    """

    def __init__(
        self,
        in_channels: int,
        width: int = 64,
        depths: Sequence[int] = (2, 2, 2, 2),
        stem_stride: Literal[1, 2, 4] = 1,
    ) -> None:
        """Builds the network with random weights.

        Args:
            in_channels: channels of the images.
            width: channels of the first stage; `embed_dim` is `width * 2 ** (len(depths) - 1)`.
            depths: basic blocks of each stage.
            stem_stride: 1 for a 3x3 convolution, 2 for 7x7 with stride 2, 4 for the latter and a max pooling.

        Raises: InputError for any other stem_stride, or a stage without blocks.
        """
        if stem_stride not in (1, 2, 4):
            raise InputError(f"stem_stride={stem_stride} of the ResNet is not possible; use 1, 2 or 4")
        if not depths or min(depths) < 1:
            raise InputError(f"depths={list(depths)} of the ResNet is not possible; give each stage 1 block or more")
        super().__init__(in_channels, width * 2 ** (len(depths) - 1))
        self._config = {
            "in_channels": in_channels,
            "width": width,
            "depths": list(depths),
            "stem_stride": stem_stride,
        }
        self.reduction = stem_stride * 2 ** (len(depths) - 1)
        kernel_size = 3 if stem_stride == 1 else 7
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size, min(stem_stride, 2), padding=kernel_size // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1) if stem_stride == 4 else nn.Identity(),
        )
        self.layers = nn.ModuleList(
            nn.Sequential(*(_block(width * 2**stage, halve=stage > 0 and i == 0) for i in range(depth)))
            for stage, depth in enumerate(depths)
        )
        self.apply(_initialize)

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        if not height or not width:
            raise InputError(f"image size {height}x{width} px is empty; use 1 px or more")
        return -(-height // self.reduction), -(-width // self.reduction)

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.stem(images)
        maps = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


def _block(width: int, halve: bool) -> BasicBlock:
    if not halve:
        return BasicBlock(width, width)
    return BasicBlock(width // 2, width, stride=2, downsample=downsample_conv(width // 2, width, 1, stride=2))


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
