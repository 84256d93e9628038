"""Fully steerable convolutional network: regular fields from the first layer to the last."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.backbones.cvt_lens import lens_head
from ssl_lens.backbones.steerable.fields import AntialiasedDownsample, CircularMask, GroupPool, field_conv, fold_into
from ssl_lens.backbones.steerable.groups import Group, group_order
from ssl_lens.errors import InputError


class SteerableCNN(Backbone):
    """Blocks of a steerable convolution to regular fields, inner batch norm and ReLU; the group is pooled at the end.

    The first block works on the image, every second one from there on on a map half as large. The view, the mean of the
    last map, does not change when the image is turned by 90° (or flipped, for D4 and D8) but for rounding, at any size.
    Under 45° it changes by what the pixel grid and the corners do: on smooth 64 px images by 5 % of its length for an
    untrained C8 network, 7 % without the mask that takes out the corners, 16 % for C4.

    Source: Weiler & Cesa 2019 and e2cnn's example of six blocks, as in the lens literature. Differs: a mean over the
    last map, never a flattened one; halving that is exact on even and odd maps; fewer fields; after blocks 1, 3 and 5.
    """

    def __init__(
        self,
        in_channels: int,
        group: Group = "C8",
        fields: Sequence[int] = (6, 8, 12, 16, 24, 48),
        mask_margin: float | None = 1.0,
        folded: bool = False,
    ) -> None:
        """Builds the network with random weights.

        Args:
            in_channels: channels of the images.
            group: rotations by 360° / 4 or / 8; D adds reflections.
            fields: regular fields of each block; the last is `embed_dim`.
            mask_margin: what the circular mask leaves free at the rim, percent of the radius; None for no mask.
            folded: plain convolutions for inference, without batch norm; needs no e2cnn.

        Raises: InputError for any other group or no block at all.
        """
        if not fields:
            raise InputError("fields=[] of the steerable CNN is empty; give the width of one block or more")
        super().__init__(in_channels, fields[-1], 2 ** (len(fields) // 2))
        self._config = {
            "in_channels": in_channels,
            "group": group,
            "fields": list(fields),
            "mask_margin": mask_margin,
            "folded": folded,
        }
        self.folded = folded
        self.mask = nn.Identity() if mask_margin is None else CircularMask(mask_margin)
        self.layers = nn.ModuleList(
            field_conv(group, given, made, 5 if i else 7, folded=folded, scalar_input=i == 0, norm=True)
            for i, (given, made) in enumerate(zip((in_channels, *fields[:-1]), fields, strict=True))
        )
        self.downsample = AntialiasedDownsample()
        self.pool = GroupPool(group_order(group))

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = self.mask(images)
        maps = []
        for i, layer in enumerate(self.layers):
            if i % 2:
                maps.append(self.pool(x))
                x = self.downsample(x)
            x = F.relu(layer(x))
        return [*maps, self.pool(x)]

    def head(self, num_outputs: int) -> nn.Module:
        return lens_head(self.embed_dim, self.embed_dim, num_outputs)

    def fold(self) -> SteerableCNN:
        return self if self.folded else fold_into(SteerableCNN(**{**self._config, "folded": True}), self)
