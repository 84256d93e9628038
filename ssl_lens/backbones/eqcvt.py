"""The steerable stem with a convolutional transformer behind it, of the lens literature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.cvt_lens import ConvStage, lens_head
from ssl_lens.backbones.options import Family, Options
from ssl_lens.backbones.steerable.backbone import SteerableBackbone
from ssl_lens.backbones.steerable.fields import CircularMask, FieldPooling, field_conv, field_pool, lift
from ssl_lens.backbones.steerable.groups import Group
from ssl_lens.errors import InputError

FIELDS, DIM = 10, 32
LOST = 4  # px of each side, to the 7x7 convolution with a padding of 1
SIGMA = 0.66  # px, of the blur behind it


@dataclass(frozen=True)
class EqCvTOptions(Options):
    """Options of an `EqCvT`.

    Attributes:
        group: rotations by 360° / 4 or / 8; D adds reflections.
        pooling: of a field's elements their maximum or mean, or with lens_frame three channels of their orientation
            relative to the middle of the image: tangential against radial.
    """

    group: Group = "C8"
    pooling: FieldPooling = "max"


class EqCvT(SteerableBackbone):
    """One steerable convolution pooled over its group, then a stage of the CvT: `eqcvt`.

    64,810 parameters with `head(2)` at one channel, whatever the group. The regions are the pixels of the last map, the
    view is their mean.

    It is not invariant: the stem turns with the image, exactly under 90° (and flips, for D4 and D8), but the stage
    behind it has ordinary convolutions, and some with a stride. Under 90° the view of an untrained C8 network changes
    by 1.2 % of its length on smooth 64 px images, as much as under 45° (1.3 %). `EqCvTInvariant` is.

    Source: the DeepLense benchmark's equivariant CvT: e2cnn for the stem, vit-pytorch's CvT for the stage. Differs: any
    image size and channel count.
    """

    options_type = EqCvTOptions
    options: EqCvTOptions
    blur: Tensor

    def __init__(self, in_channels: int, options: EqCvTOptions = EqCvTOptions(), *, folded: bool = False) -> None:
        """Builds the network with random weights; see `SteerableBackbone` for `folded`."""
        group = options.group
        super().__init__(in_channels, DIM, reduction=2, folded=folded)
        self.options = options
        self.mask = CircularMask(margin=1.0)
        self.conv = field_conv(group, in_channels, FIELDS, 7, folded=folded, scalar_input=True, padding=1, norm=True)
        offset = torch.arange(5) - 2.0
        blur = torch.exp(-(offset[:, None].square() + offset.square()) / (2 * SIGMA**2))
        self.register_buffer("blur", blur / blur.sum(), persistent=False)
        self.pool = field_pool(group, options.pooling)
        self.stage = ConvStage(
            FIELDS * self.pool.per_field, DIM, kernel_size=3, stride=2, num_heads=3, depth=2, mlp_ratio=2.0
        )

    @property
    def accepted_sizes(self) -> str:
        return f"{LOST + 1} px or more"

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        if min(height, width) <= LOST:
            raise InputError(
                f"image size {height}x{width} px leaves nothing behind the 7x7 convolution; use {LOST + 1} px or more"
            )
        return super().map_size(height - LOST, width - LOST)

    def stem(self, images: Tensor) -> Tensor:
        """The map [B, 10 or 30, H - 4, W - 4] of images [B, C, H, W] that the CvT's stage sees."""
        return lift(self.conv, self.mask(images), lambda x: self.pool(self._blurred(x)))[0]

    def _blurred(self, x: Tensor) -> Tensor:
        kernel = self.blur.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return F.conv2d(x, kernel, padding=2, groups=x.shape[1])

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.stem(images)
        return [x, self.stage(x)]

    def head(self, num_outputs: int) -> nn.Module:
        return lens_head(DIM, 64, num_outputs)


VARIANTS = {"eqcvt": EqCvTOptions()}
FAMILY = Family(EqCvT, VARIANTS)
