"""A small perceptron on the lens's wavelets: the network that two cores train in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, FixedFrontBackbone
from ssl_lens.backbones.layers.angular import NUMBERS, angular_power
from ssl_lens.backbones.layers.rings import MAX_RINGS, compressed, ring_statistics
from ssl_lens.backbones.lens_wavelets import LensWavelets, LensWaveletsOptions
from ssl_lens.backbones.options import Bounds, Count, Family
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class LensMLPOptions(LensWaveletsOptions):
    """Options of `LensMLP`.

    Attributes:
        octaves: of `LensWavelets`.
        width: of the layers.
        depth: how many layers.
        smallest_std: fixed features that vary less than this are not enlarged. Most of them are noise, or particular to
            a simulator; where images to train and to judge on come from the same telescope, 0.003 keeps what they say.
    """

    width: Count = 256
    depth: Count = 2
    smallest_std: Annotated[float, Bounds(1e-6)] = 0.03


class LensMLP(FixedFrontBackbone):
    """`LensWavelets`, pooled in rings, standardised and seen by a perceptron, whose last layer is the view.

    The fixed features of every map of the wavelets are its mean and standard deviation in 6 rings and how it varies
    around the lens, by number of periods, on 10 circles (`angular_power`), all compressed: 936 numbers of a band. They
    are standardised by those of the images at hand (`set_domain`), so that another telescope's levels
    and scatter are not seen. Turns by 90 degrees and flips of the image change nothing.

    The stages are the maps of the wavelets and the last layer as a map of one pixel, which is the only region.

    Source: ours.
    """

    options_type = LensMLPOptions
    options: LensMLPOptions

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, options: LensMLPOptions = LensMLPOptions()) -> None:
        super().__init__(in_channels, options.width, 1)
        self.options = options
        self.wavelets = LensWavelets(in_channels, LensWaveletsOptions(options.octaves))
        width = in_channels * self.wavelets.maps_of_a_band * (2 * MAX_RINGS + NUMBERS)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        layers: list[nn.Module] = []
        for _ in range(options.depth):
            layers += [nn.Linear(width, options.width), nn.GELU()]
            width = options.width
        self.layers = nn.Sequential(*layers)

    def fixed_features(self, images: Tensor) -> Tensor:
        self.check_images(images)
        return _in_rings(self.wavelets.stages(images))

    def set_domain(self, features: Tensor) -> None:
        self.mean.copy_(features.mean(dim=0))
        self.std.copy_(features.std(dim=0, correction=0).clamp_min(self.options.smallest_std))

    def take_domain(self, other: LensMLP) -> None:
        self.mean.copy_(other.mean)
        self.std.copy_(other.std)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Those of `LensWavelets`, and the last layer [B, width, 1, 1]."""
        self.check_images(images)
        maps = self.wavelets.stages(images)
        return [*maps, self._view(_in_rings(maps))[..., None, None]]

    def from_fixed(self, features: Tensor) -> Features:
        view = self._view(features)
        return Features(view, view[:, None])

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        if min(self.wavelets.map_size(height, width)) < 2 * MAX_RINGS:
            raise InputError(
                f"image size {height}x{width} px has no room for {MAX_RINGS} rings of the widest wavelets; use "
                f"{self._smallest} px or more"
            )
        return 1, 1

    @property
    def accepted_sizes(self) -> str:
        return f"{self._smallest} px or more"

    @property
    def _smallest(self) -> int:
        return (2 * MAX_RINGS - 1) * self.wavelets.reduction + 1

    def _view(self, features: Tensor) -> Tensor:
        return self.layers((features.to(self.mean) - self.mean) / self.std)


def _in_rings(maps: list[Tensor]) -> Tensor:
    with torch.autocast(maps[0].device.type, enabled=False):  # a variance in bfloat16 would be noise
        statistics = [ring_statistics(each) for each in maps]
        return compressed(torch.cat([*statistics, *map(angular_power, maps)], dim=1))


VARIANTS = {"lens_mlp": LensMLPOptions()}
FAMILY = Family(LensMLP, VARIANTS)
