"""Images that show each lens several times: whatever its renderings do not share is not the lens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_lens.data.images import ImageSet
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

if TYPE_CHECKING:
    import torch

    from ssl_lens.data.batches import Batches, Plan

logger = logging.getLogger(__name__)

LENS = "lens_number"  # the column of a simulated set that tells lenses apart


@dataclass(frozen=True)
class Renderings:
    """Lenses of which there are `renderings` images each; an `ImageSource` of lenses.

    Attributes:
        images: those of a lens one after the other.
    """

    images: ImageSet
    renderings: int

    def __len__(self) -> int:
        return len(self.images) // self.renderings

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, H, W] of every image."""
        return self.images.shape

    @property
    def names(self) -> Sequence[str]:
        """The first rendering of each lens."""
        return self.images.names[:: self.renderings]

    @property
    def policy(self) -> PixelPolicy:
        return self.images.policy

    @property
    def noise(self) -> np.ndarray | None:
        """That of each image and channel [N k, C], in the order of the sample."""
        return self.images.noise

    def listing(self) -> dict[str, Any]:
        """What distinguishes these lenses from others, ready for JSON."""
        return self.images.listing() | {"renderings": self.renderings}

    def sample(self) -> Images:
        """All images [N k, C, H, W], those of a lens one after the other."""
        return self.images.images

    def batches(self, plan: Plan, device: torch.device) -> Batches:
        """Batches of lenses [b, k, C, H, W]; see `ArrayBatches`."""
        from ssl_lens.data.array_batches import ArrayBatches  # sets are read and simulated without torch

        return ArrayBatches(self.images.images, plan, device, self.renderings)


def lens_numbers(images: ImageSet, column: str) -> np.ndarray:
    """Numbers [N] of the table that all images of a lens have.

    Raises: InputError if the set has no such number.
    """
    if column not in images.targets:
        known = ", ".join(images.targets) or "none"
        raise InputError(
            f"column={column} is not a number in the table of the images, which has {known}; simulate lenses with "
            "several renderings, or name the column that tells lenses apart"
        )
    return images.targets[column]


def renderings_of(images: ImageSet, column: str) -> Renderings:
    """The lenses of a set, by a number that all images of a lens have; all with as many renderings as the rarest has.

    Raises: InputError if the set has no such number, or a lens is there only once.
    """
    numbers = lens_numbers(images, column)
    lenses, first, counts = np.unique(numbers, return_index=True, return_counts=True)
    if np.isnan(lenses[-1]) or counts.min() < 2:
        raise InputError(
            f"{images.names[first[counts.argmin()]]} is the only image of {column}={lenses[counts.argmin()]:g}; give "
            "two or more of every lens"
        )
    order = np.lexsort((np.arange(len(images)), numbers))
    starts = np.cumsum(counts) - counts
    rows = order[starts[:, None] + np.arange(counts.min())]  # [lenses, k]
    logger.info("%d lenses of %d renderings each", *rows.shape)
    return Renderings(images.subset(rows.ravel()), rows.shape[1])
