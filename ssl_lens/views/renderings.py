"""The policy `renderings`: every view is another rendering of the lens, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lens.views.photometry import ViewKind
from ssl_lens.views.policy import PixelEffects, Policy


@dataclass(frozen=True)
class Centre:
    """The middle of the image, pixel by pixel."""

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return torch.eye(2, 3).expand(*keys.shape, 2, 3)

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return self.global_maps(keys, size, image_size)


def unchanged(views: Tensor, keys: Tensor, kinds: Sequence[ViewKind], noise: Tensor | None = None) -> Tensor:
    """The pixels of the views as they are."""
    return views


class RenderingsPolicy(Policy):
    """Views as the images are, of which there must be two or more of each lens: what these do not share is enough."""

    def geometry(self) -> Centre:
        return Centre()

    def pixel_effects(self, pixel_range: tuple[float, float]) -> PixelEffects:
        return unchanged

    @property
    def changes_pixels(self) -> bool:
        return False
