"""Where a view looks: one affine map per view, from pixels of the view to pixels of the image.

Both sides are counted in pixels from the centre, x before y, so that a map [[a, b, c], [d, e, f]] means
    x_image = a x_view + b y_view + c,   y_image = d x_view + e y_view + f
and crop, zoom, rotation, flip and shift are one resampling. A policy draws such maps from keys [B, V] and returns
them as [B, V, 2, 3].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lens.views.randomness import uniform

_TRIES = 10  # of RandomResizedCrop, before it takes the whole image


@dataclass(frozen=True)
class LensSafe:
    """Rotation by any angle, mirror, shift; never a zoom, so that an Einstein radius stays what it was.

    A global crop is centred up to a shift of at most `max_shift_px`: a ring around the centre stays inside it when
    ring radius + max_shift_px <= size / 2. The centre of a local crop is anywhere such that the unrotated crop lies
    in the image.
    """

    max_shift_px: float = 4.0

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        angle, flip, direction, distance = uniform(keys, 4).unbind(-1)
        distance = self.max_shift_px * distance.sqrt()  # even over the disc
        direction = 2 * math.pi * direction
        return _rigid_maps(angle, flip, distance * direction.cos(), distance * direction.sin())

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        height, width = image_size
        angle, flip, x, y = uniform(keys, 4).unbind(-1)
        return _rigid_maps(angle, flip, (x - 0.5) * (width - size), (y - 0.5) * (height - size))


@dataclass(frozen=True)
class ImageNetCrops:
    """Random resized crop and horizontal flip, with the scales of DINO and EsViT: for comparison, as it zooms.

    Attributes:
        global_scale, local_scale: share of the image's area that a crop covers.
        ratio: width over height of the covered rectangle, log-uniform.

    Source: torchvision's RandomResizedCrop. Differs: sizes and corners are not rounded to whole pixels; where no
    try fits, the whole image is taken (the same thing for square images); no anti-aliasing, which only a crop of
    more pixels than the view has would need.
    """

    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return self._maps(keys, size, image_size, self.global_scale)

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return self._maps(keys, size, image_size, self.local_scale)

    def _maps(self, keys: Tensor, size: int, image_size: tuple[int, int], scale: tuple[float, float]) -> Tensor:
        height, width = image_size
        flip, x, y, *tries = uniform(keys, 3 + 2 * _TRIES).unbind(-1)
        area = height * width * (scale[0] + (scale[1] - scale[0]) * torch.stack(tries[:_TRIES]))
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * torch.stack(tries[_TRIES:]))
        crop_width, crop_height = (area * ratio).sqrt(), (area / ratio).sqrt()

        fits = (crop_width <= width) & (crop_height <= height)
        first = fits.to(torch.uint8).argmax(0, keepdim=True)
        none_fits = ~fits.any(0)
        crop_width = crop_width.gather(0, first)[0].masked_fill(none_fits, width)
        crop_height = crop_height.gather(0, first)[0].masked_fill(none_fits, height)

        zero = torch.zeros_like(x)
        x_row = torch.stack([_sign(flip) * crop_width / size, zero, (x - 0.5) * (width - crop_width)], -1)
        y_row = torch.stack([zero, crop_height / size, (y - 0.5) * (height - crop_height)], -1)
        return torch.stack([x_row, y_row], -2)


def _rigid_maps(angle: Tensor, flip: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Mirror in x, then rotation, then shift by (x, y) px; `angle` and `flip` are draws in [0, 1)."""
    cos, sin, mirror = torch.cos(2 * math.pi * angle), torch.sin(2 * math.pi * angle), _sign(flip)
    x_row = torch.stack([mirror * cos, -sin, x], -1)
    y_row = torch.stack([mirror * sin, cos, y], -1)
    return torch.stack([x_row, y_row], -2)


def _sign(flip: Tensor) -> Tensor:
    return torch.where(flip < 0.5, -1.0, 1.0)
