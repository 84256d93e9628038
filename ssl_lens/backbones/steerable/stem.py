"""A stem of group-pooled convolutions, and a backbone behind one."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, MapBackbone, SizeRule, taken
from ssl_lens.backbones.options import Bounds, Count, Options
from ssl_lens.backbones.steerable.fields import (
    AntialiasedDownsample,
    FieldPooling,
    field_conv,
    field_pool,
    fold_into,
    lift,
)
from ssl_lens.backbones.steerable.groups import Group, expanded_once
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class StemOptions(Options):
    """Options of a steerable stem.

    Attributes:
        group: rotations by 360° / 4 or / 8; D adds reflections.
        fields: regular fields of every layer; the output has as many channels, three times as many with lens_frame.
        depth: number of convolutions.
        kernel_size: odd side of the filters, px.
        downsample: 2 halves the map (antialiased) after the first layer.
        pooling: how the elements of the group become one channel; lens_frame: three, of the orientation relative to the
            middle of the image, so that the network behind it sees what is tangential and what is radial.

    Raises: InputError if the kernel is even, or as `Options`.
    """

    group: Group = "C8"
    fields: Count = 8
    depth: Count = 2
    kernel_size: Annotated[int, Bounds(3, 64)] = 5
    downsample: Literal[1, 2] = 1
    pooling: FieldPooling = "max"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise InputError(f"kernel_size={self.kernel_size} of the stem is not symmetric; use an odd number from 3")


class Stem(nn.Module):
    """Convolutions equivariant to quarter or eighth turns (C4, C8) and flips (D4, D8), pooled over the group.

    Images turned by 90° (or flipped, for D) give maps turned likewise, exactly, at any image size; eighth turns are as
    good as the sampling of the filters.

    Shapes: [B, in_channels, H, W] to [B, out_channels, H, W], or ceil(H / 2), ceil(W / 2) with downsample=2.
    Source: Weiler & Cesa 2019 (regular fields, inner batch norm, group pooling).
    """

    def __init__(self, in_channels: int, options: StemOptions = StemOptions(), *, folded: bool = False) -> None:
        """Builds the stem with random weights.

        Args:
            in_channels: channels of the images; each is a scalar field.
            options: see `StemOptions`.
            folded: plain convolutions for inference, without batch norm; needs no e2cnn.
        """
        super().__init__()
        group, fields, depth = options.group, options.fields, options.depth
        self.options = options
        self.in_channels = in_channels
        self.folded = folded
        self.reduction = options.downsample
        self.pool = field_pool(group, options.pooling)
        self.out_channels = fields * self.pool.per_field
        self.layers = nn.ModuleList(
            field_conv(group, given, fields, options.kernel_size, folded=folded, scalar_input=i == 0, norm=True)
            for i, given in enumerate([in_channels] + [fields] * (depth - 1))
        )
        self.downsample = AntialiasedDownsample() if options.downsample == 2 else nn.Identity()

    def config(self) -> dict[str, Any]:
        """Channels, options and form, ready for JSON; `from_config` builds the same stem of it."""
        return {"in_channels": self.in_channels, **self.options.config(), "folded": self.folded}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Stem:
        """The stem that `config` describes, with fresh weights.

        Raises: InputError if an option is unknown or cannot be.
        """
        in_channels, others = taken(config, "in_channels")
        folded, options = taken(others, "folded")
        return cls(in_channels, StemOptions.from_config(options), folded=folded)

    def fold(self) -> Stem:
        """The same function with its present weights, for inference."""
        if self.folded:
            return self
        plain = Stem(self.in_channels, self.options, folded=True)
        fold_into(plain, self)
        return plain

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the stem's map for images of this size in pixels."""
        return -(-height // self.reduction), -(-width // self.reduction)

    def forward(self, images: Tensor) -> Tensor:
        first, *others = self.layers
        if not others:
            return lift(first, images, lambda x: self.downsample(self.pool(x)))[0]
        (x,) = lift(first, images, self.downsample)  # early, so that the later layers work on the smaller map
        *inner, last = others
        for layer in inner:
            x = F.relu(layer(x))
        x = last(x)
        if self.options.pooling == "max":  # before the ReLU: the same result from a fraction of the work
            return F.relu(self.pool(x))
        return self.pool(F.relu(x))


class StemmedBackbone(MapBackbone):
    """A backbone that sees a stem's map in place of the image."""

    def __init__(self, stem: Stem, backbone: MapBackbone) -> None:
        """Raises InputError unless the backbone takes as many channels as the stem gives."""
        if stem.out_channels != backbone.in_channels:
            raise InputError(
                f"the stem gives {stem.out_channels} channels but the backbone takes {backbone.in_channels}; "
                f"build the backbone with in_channels={stem.out_channels}"
            )
        super().__init__(stem.in_channels, backbone.embed_dim, stem.reduction * backbone.reduction)
        self.stem = stem
        self.backbone = backbone

    @property
    def accepted_sizes(self) -> str:
        inner = self.backbone.accepted_sizes
        return f"{inner} after halving" if self.stem.reduction > 1 and inner != "any" else inner

    @property
    def size_rule(self) -> SizeRule:
        inner, factor = self.backbone.size_rule, self.stem.reduction
        multiple = inner.multiple * factor if inner.multiple > 1 else 1
        return SizeRule(multiple, inner.largest and (inner.largest[0] * factor, inner.largest[1] * factor))

    def config(self) -> dict[str, Any]:
        """Configurations of the two parts; each builds its own class again."""
        return {"stem": self.stem.config(), "backbone": self.backbone.config()}

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        stem_size = self.stem.map_size(height, width)
        try:
            return self.backbone.map_size(*stem_size)
        except InputError as error:
            raise InputError(f"behind the stem a {height}x{width} px image is a map: {error}") from error

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        return self.backbone.stages(self.stem(images))

    def forward(self, images: Tensor) -> Features:
        self.check_images(images)
        return self.backbone(self.stem(images))

    def each(self, batches: Sequence[Tensor]) -> list[Features]:
        with expanded_once(self):
            return super().each(batches)

    def head(self, num_outputs: int) -> nn.Module:
        return self.backbone.head(num_outputs)

    def fold(self) -> StemmedBackbone:
        """A copy in evaluation mode with plain convolutions for a stem."""
        return StemmedBackbone(copy.deepcopy(self.stem.fold()), copy.deepcopy(self.backbone.fold())).eval()
