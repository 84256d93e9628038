"""The policy `renderings`: every view is another rendering of the lens, as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lens.views.policy import Policy


@dataclass(frozen=True)
class Centre:
    """The middle of the image, pixel by pixel."""

    def global_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return torch.eye(2, 3).expand(*keys.shape, 2, 3)

    def local_maps(self, keys: Tensor, size: int, image_size: tuple[int, int]) -> Tensor:
        return self.global_maps(keys, size, image_size)


class RenderingsPolicy(Policy):
    """Views as the images are, of which there must be two or more of each lens: what these do not share is enough."""

    def geometry(self) -> Centre:
        return Centre()

    @property
    def changes_pixels(self) -> bool:
        return False
