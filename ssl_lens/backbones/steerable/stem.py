"""A stem of group-pooled convolutions, and a backbone behind one."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Backbone, Features
from ssl_lens.backbones.steerable.fields import AntialiasedDownsample, GroupPool, field_conv, fold_into
from ssl_lens.backbones.steerable.groups import Group, group_order
from ssl_lens.errors import InputError


class Stem(nn.Module):
    """Convolutions equivariant to quarter or eighth turns (C4, C8) and flips (D4, D8), pooled over the group.

    Images turned by 90° (or flipped, for D) give maps turned likewise, exactly, at any image size; eighth turns are as
    good as the sampling of the filters.

    Shapes: [B, in_channels, H, W] to [B, out_channels, H, W], or ceil(H / 2), ceil(W / 2) with downsample=2.
    Source: Weiler & Cesa 2019 (regular fields, inner batch norm, group pooling).
    """

    def __init__(
        self,
        in_channels: int,
        group: Group = "C8",
        fields: int = 8,
        depth: int = 2,
        kernel_size: int = 5,
        downsample: Literal[1, 2] = 1,
        pooling: Literal["max", "mean"] = "max",
        folded: bool = False,
    ) -> None:
        """Builds the stem with random weights.

        Args:
            in_channels: channels of the images; each is a scalar field.
            group: rotations by 360° / 4 or / 8; D adds reflections.
            fields: regular fields of every layer, and channels of the output.
            depth: number of convolutions.
            kernel_size: odd side of the filters, px.
            downsample: 2 halves the map (antialiased) after the first layer.
            pooling: how the elements of the group become one channel.
            folded: plain convolutions for inference, without batch norm; needs no e2cnn.

        Raises: InputError for any other group, kernel size, depth, downsampling or pooling.
        """
        super().__init__()
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size={kernel_size} of the stem is not symmetric; use an odd number from 3")
        if depth < 1:
            raise InputError(f"depth={depth} of the stem is too small; use 1 or more")
        if downsample not in (1, 2):
            raise InputError(f"downsample={downsample} of the stem is not possible; use 1 or 2")
        if pooling not in ("max", "mean"):
            raise InputError(f"pooling={pooling!r} of the stem is not known; use 'max' or 'mean'")
        self._config = {
            "in_channels": in_channels,
            "group": group,
            "fields": fields,
            "depth": depth,
            "kernel_size": kernel_size,
            "downsample": downsample,
            "pooling": pooling,
            "folded": folded,
        }
        self.in_channels = in_channels
        self.out_channels = fields
        self.folded = folded
        self.reduction = downsample
        self.pool = GroupPool(group_order(group), pooling)
        self.layers = nn.ModuleList(
            field_conv(group, given, fields, kernel_size, folded=folded, scalar_input=i == 0, norm=True)
            for i, given in enumerate([in_channels] + [fields] * (depth - 1))
        )
        self.downsample = AntialiasedDownsample() if downsample == 2 else nn.Identity()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return dict(self._config)

    def fold(self) -> Stem:
        """The same function with its present weights, for inference."""
        return self if self.folded else fold_into(Stem(**{**self._config, "folded": True}), self)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the stem's map for images of this size in pixels."""
        return -(-height // self.reduction), -(-width // self.reduction)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < len(self.layers) - 1:
                x = F.relu(x)
            elif self.pool.kind == "max":  # before the ReLU: the same result from a fraction of the work
                x = F.relu(self.pool(x))
            else:
                x = self.pool(F.relu(x))
            if i == 0:  # early, so that the later layers work on the smaller map
                x = self.downsample(x)
        return x


class StemmedBackbone(Backbone):
    """A backbone that sees a stem's map in place of the image."""

    def __init__(self, stem: Stem, backbone: Backbone) -> None:
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

    def config(self) -> dict[str, Any]:
        """Configurations of the two parts; each rebuilds its own class."""
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

    def head(self, num_outputs: int) -> nn.Module:
        return self.backbone.head(num_outputs)

    def fold(self) -> StemmedBackbone:
        """A copy in evaluation mode with plain convolutions for a stem."""
        return StemmedBackbone(copy.deepcopy(self.stem.fold()), copy.deepcopy(self.backbone.fold())).eval()
