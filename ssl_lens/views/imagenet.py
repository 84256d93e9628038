"""The policy `imagenet`: the reference's views, for comparison, as they zoom."""

from __future__ import annotations

from ssl_lens.section import Range
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops
from ssl_lens.views.policy import Policy


class ImageNetPolicy(Policy):
    """Views of the reference (DINO, EsViT): random resized crops and colour jitter between lowest and highest pixel."""

    global_scale: Range = (0.4, 1.0)
    local_scale: Range = (0.05, 0.4)

    def geometry(self) -> ImageNetCrops:
        return ImageNetCrops(self.global_scale, self.local_scale)

    def pixel_effects(self, pixel_range: tuple[float, float]) -> ColourJitter:
        return ColourJitter(black=pixel_range[:1], white=pixel_range[1:])
