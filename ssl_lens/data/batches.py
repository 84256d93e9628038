"""What batches of images are, wherever they come from, and how images become steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from ssl_lens.errors import InputError

if TYPE_CHECKING:  # sets are read and simulated without torch
    from torch import Tensor


SMALLEST_BATCH = 2  # a single image has nothing to be told apart from


class Plan(NamedTuple):
    """How images become steps.

    Attributes:
        batch_size: images per step over all ranks and micro-batches.
        accumulate: micro-batches of a step on each rank.
        rank, world_size: of this process and of all.
    """

    batch_size: int
    accumulate: int
    seed: int
    rank: int
    world_size: int

    def check(self, images: int) -> None:
        """Raises InputError if a batch is larger than the set of `images` or is not shared evenly."""
        if self.batch_size > images:
            raise InputError(
                f"batch_size={self.batch_size} exceeds the {images} images; set batch_size to {images} or less"
            )
        parts = self.world_size * self.accumulate
        if self.batch_size % parts:
            raise InputError(
                f"batch_size={self.batch_size} is not a multiple of {self.world_size} processes x "
                f"accumulate={self.accumulate}; set batch_size to a multiple of {parts}"
            )


class Batches(Protocol):
    """The batches that one rank sees. Which images are in a step is a pure function of the plan and the step, so that
    resuming needs no saved sampler.

    Attributes:
        steps_per_epoch: whole batches in the set.
    """

    steps_per_epoch: int

    def at(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """This rank's micro-batches of a step: (raw images, their indices [b]), the images float32 on the device, the
        indices int64 on the CPU.

        Raw images are [b, C, H, W], b = batch_size / (world_size · accumulate); of a source that holds k renderings of
        each object, [b, k, C, H, W]. Any step can be asked for, and the same one again.

        Raises: InputError if images cannot be read any more, or too many are unusable.
        """
        ...

    def close(self) -> None:
        """Ends what reads ahead; what was given stays valid."""
        ...


def fitting_batch_size(batch_size: int, images: int, parts: int) -> int:
    """`batch_size`, or for a smaller set of `images` the largest multiple of `parts` that the set fills.

    Args:
        parts: world_size · accumulate, which share a batch evenly.

    Raises: InputError if the set has fewer images than parts, or than the smallest batch.
    """
    if batch_size <= images:
        return batch_size
    if images < SMALLEST_BATCH:
        raise InputError(f"images to train on: {images}; give {SMALLEST_BATCH} or more, the smallest batch")
    if images < parts:
        raise InputError(
            f"{images} images are fewer than the {parts} parts (processes x accumulate) that share a batch; give more "
            "images, or fewer processes or a smaller accumulate"
        )
    return images - images % parts
