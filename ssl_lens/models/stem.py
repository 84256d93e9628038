"""Stems of group-pooled convolutions, as plain torch modules, and a backbone behind one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.errors import InputError
from ssl_lens.models.backbone import Backbone


class AntialiasedDownsample(nn.Module):
    """Blurs and halves a map [B, C, H, W] to [B, C, ceil(H / 2), ceil(W / 2)], commuting exactly with turns and flips.

    A strided filter is centred on the map only where (side + 2 * padding - taps) is even, so even sides take four
    binomial taps and odd sides five.

    Source: Zhang 2019 (anti-aliased pooling). Differs: taps by the parity of the map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("even_taps", torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8, persistent=False)
        self.register_buffer("odd_taps", torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        rows, columns = (self.odd_taps if side % 2 else self.even_taps for side in (height, width))
        kernel = (rows[:, None] * columns).to(x.dtype).expand(channels, 1, -1, -1)
        padding = (len(rows) - 1) // 2, (len(columns) - 1) // 2
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)


class Stem(nn.Module, ABC):
    """Convolutions over a group, ReLU between them, maximum over the group at the end.

    Layer i maps to `fields * group_order` channels, a field's group elements side by side. The maximum over them makes
    `fields` plain channels: images turned or flipped by an element of the group that maps the pixel grid to itself give
    maps turned or flipped likewise, exactly.

    Shapes: [B, in_channels, H, W] to [B, out_channels, H, W], or ceil(H / 2), ceil(W / 2) with downsample=2.
    """

    def __init__(
        self, in_channels: int, fields: int, group_order: int, downsample: int, layers: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        if downsample not in (1, 2):
            raise InputError(f"downsample={downsample} of the stem is not possible; use 1 or 2")
        self.in_channels = in_channels
        self.out_channels = fields
        self.group_order = group_order
        self.layers = nn.ModuleList(layers)
        self.downsample = AntialiasedDownsample() if downsample == 2 else nn.Identity()

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""

    @abstractmethod
    def fold(self) -> FoldedStem:
        """The same function with its present weights, for inference."""

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the stem's map for images of this size in pixels."""
        if isinstance(self.downsample, AntialiasedDownsample):
            return -(-height // 2), -(-width // 2)
        return height, width

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == len(self.layers) - 1:  # before the ReLU: the same result from a group_order-th of the work
                x = x.unflatten(1, (self.out_channels, self.group_order)).amax(dim=2)
            x = F.relu(x)
            if i == 0:  # early, so that the later layers work on the smaller map
                x = self.downsample(x)
        return x


class FoldedStem(Stem):
    """A stem whose filters are expanded and batch norms folded in: plain convolutions with bias."""

    def __init__(
        self, in_channels: int, fields: int, group_order: int, depth: int, kernel_size: int, downsample: int
    ) -> None:
        width = fields * group_order
        super().__init__(
            in_channels,
            fields,
            group_order,
            downsample,
            (
                nn.Conv2d(in_channels if i == 0 else width, width, kernel_size, padding=kernel_size // 2)
                for i in range(depth)
            ),
        )
        self._config = {
            "in_channels": in_channels,
            "fields": fields,
            "group_order": group_order,
            "depth": depth,
            "kernel_size": kernel_size,
            "downsample": downsample,
        }

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def fold(self) -> FoldedStem:
        return self


class StemmedBackbone(Backbone):
    """A backbone that sees a stem's map in place of the image."""

    def __init__(self, stem: Stem, backbone: Backbone) -> None:
        """Raises InputError unless the backbone takes as many channels as the stem gives."""
        if stem.out_channels != backbone.in_channels:
            raise InputError(
                f"the stem gives {stem.out_channels} channels but the backbone takes {backbone.in_channels}; "
                f"build the backbone with in_channels={stem.out_channels}"
            )
        super().__init__(stem.in_channels, backbone.embed_dim)
        self.stem = stem
        self.backbone = backbone

    @property
    def accepted_sizes(self) -> str:
        inner = self.backbone.accepted_sizes
        halved = isinstance(self.stem.downsample, AntialiasedDownsample) and inner != "any"
        return f"{inner} after halving" if halved else inner

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

    def fold(self) -> StemmedBackbone:
        """A copy in evaluation mode with plain convolutions for a stem."""
        return StemmedBackbone(copy.deepcopy(self.stem.fold()), copy.deepcopy(self.backbone.fold())).eval()
