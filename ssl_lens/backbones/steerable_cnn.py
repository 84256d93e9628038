"""Fully steerable convolutional network: regular fields from the first layer to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.cvt_lens import lens_head
from ssl_lens.backbones.options import Bounds, Counts, Family, Options
from ssl_lens.backbones.steerable.backbone import SteerableBackbone
from ssl_lens.backbones.steerable.fields import (
    AntialiasedDownsample,
    CircularMask,
    FieldPooling,
    field_conv,
    field_pool,
    lift,
)
from ssl_lens.backbones.steerable.groups import Group
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class SteerableCNNOptions(Options):
    """Options of a steerable CNN.

    Attributes:
        group: rotations by 360° / 4 or / 8; D adds reflections.
        fields: regular fields of each block; the last is the network's `embed_dim`, or a third of it with lens_frame.
        pooling: of a field's elements their maximum or mean, or with lens_frame three channels of their orientation
            relative to the middle of the image: tangential against radial.
        mask_margin: what the circular mask leaves free at the rim, percent of the radius; None for no mask.

    Raises: InputError if there is no block, or as `Options`.
    """

    group: Group = "C8"
    fields: Counts = (6, 8, 12, 16, 24, 48)
    pooling: FieldPooling = "max"
    mask_margin: Annotated[float, Bounds(0, 100)] | None = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.fields:
            raise InputError("fields=[] of the steerable CNN is empty; give the width of one block or more")


class SteerableCNN(SteerableBackbone):
    """Blocks of a steerable convolution to regular fields, inner batch norm and ReLU; the group is pooled at the end.

    The first block works on the image, every second one from there on on a map half as large. The view, the mean of the
    last map, does not change when the image is turned by 90° (or flipped, for D4 and D8) but for rounding, at any size.
    Under 45° it changes by what the pixel grid and the corners do: on smooth 64 px images by 5 % of its length for an
    untrained C8 network, 7 % without the mask that takes out the corners, 16 % for C4.

    Source: Weiler & Cesa 2019 and e2cnn's example of six blocks, as in the lens literature. Differs: a mean over the
    last map, never a flattened one; halving that is exact on even and odd maps; fewer fields; after blocks 1, 3 and 5.
    """

    options_type = SteerableCNNOptions
    options: SteerableCNNOptions

    def __init__(
        self, in_channels: int, options: SteerableCNNOptions = SteerableCNNOptions(), *, folded: bool = False
    ) -> None:
        """Builds the network with random weights; see `SteerableBackbone` for `folded`."""
        group, fields = options.group, options.fields
        pool = field_pool(group, options.pooling)
        super().__init__(in_channels, fields[-1] * pool.per_field, 2 ** (len(fields) // 2), folded=folded)
        self.options, self.pool = options, pool
        self.mask = nn.Identity() if options.mask_margin is None else CircularMask(options.mask_margin)
        self.layers = nn.ModuleList(
            field_conv(group, given, made, 5 if i else 7, folded=folded, scalar_input=i == 0, norm=True)
            for i, (given, made) in enumerate(zip((in_channels, *fields[:-1]), fields, strict=True))
        )
        self.downsample = AntialiasedDownsample()

    def stages(self, images: Tensor) -> list[Tensor]:
        return self._maps(images, every=True)

    def last_map(self, images: Tensor) -> Tensor:
        return self._maps(images, every=False)[0]

    def _maps(self, images: Tensor, every: bool) -> list[Tensor]:
        """The maps of every stage, or the last alone."""
        self.check_images(images)
        first, *others = self.layers
        then = ([self.pool] if every or not others else []) + ([self.downsample] if others else [])
        maps = lift(first, self.mask(images), *then)
        if not others:
            return maps
        x = maps.pop()
        for i, layer in enumerate(others):
            if i and i % 2 == 0:
                maps += [self.pool(x)] if every else []
                x = self.downsample(x)
            x = F.relu(layer(x))
        return [*maps, self.pool(x)]

    def head(self, num_outputs: int) -> nn.Module:
        return lens_head(self.embed_dim, self.embed_dim, num_outputs)


VARIANTS: dict[str, Options] = {
    "steerable_cnn_c4": SteerableCNNOptions(group="C4"),
    "steerable_cnn_c8": SteerableCNNOptions(group="C8"),
    "steerable_cnn_d4": SteerableCNNOptions(group="D4"),
    "steerable_cnn_d8": SteerableCNNOptions(group="D8"),
}
FAMILY = Family(SteerableCNN, VARIANTS)
