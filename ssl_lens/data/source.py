"""Where the images of a pretraining come from: one interface, whether they lie in an array or are streamed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.images import DEFAULT_POLICY, ImageSet, load_images
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.renderings import renderings_of
from ssl_lens.data.shards.shard_list import are_shards
from ssl_lens.data.shards.shard_set import find_shards
from ssl_lens.data.splits import divide, own_division, read_names
from ssl_lens.errors import InputError

if TYPE_CHECKING:  # sets are read and simulated without torch
    import numpy as np
    import torch

    from ssl_lens.data.batches import Batches, Plan

logger = logging.getLogger(__name__)


class ImageSource(Protocol):
    """Images of one shape that batches are made of; `ImageSet`, `Renderings` and `ShardSet` are such.

    Image i is the same one in `names`, in a batch's indices and in every run. A source may hold k renderings of each
    object: its length and names then count objects, and its sample has the renderings of each one after the other.
    """

    @property
    def renderings(self) -> int:
        """k, images of each object."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, H, W] of every raw image."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Name of each image."""
        ...

    @property
    def policy(self) -> PixelPolicy:
        """By which flagged pixels were filled and sizes made equal."""
        ...

    @property
    def noise(self) -> np.ndarray | None:
        """Standard deviation of the noise of each image and channel in the files' units, [N, C], or [N k, C] with the
        renderings of each object one after the other; None if not known."""
        ...

    def __len__(self) -> int: ...

    def listing(self) -> dict[str, Any]:
        """What distinguishes these images from others, ready for JSON."""
        ...

    def sample(self) -> Images:
        """Raw images [n, C, H, W] that stand for all, to fit the preprocessing to; may be all, left on disk."""
        ...

    def batches(self, plan: Plan, device: torch.device) -> Batches:
        """Batches of raw images on `device`.

        Raises: InputError if a batch is larger than the set or is not shared evenly.
        """
        ...


def open_source(
    path: str,
    *,
    in_channels: int | None = None,
    policy: PixelPolicy = DEFAULT_POLICY,
    layout: LayoutName = "auto",
    files: str | None = None,
    exclude: Path | None = None,
    renderings: str | None = None,
    workers: int = 2,
    shuffle_buffer: int = 1000,
    quarantine: Path | None = None,
) -> ImageSource:
    """Opens the images to pretrain on: all of a set but those that it holds out for tests.

    Args:
        path: folder of images, table or pack, as `load_images` takes it; or shards to be streamed: a tar, a URL, or a
            pattern such as `shards/{000..099}.tar`.
        in_channels: channels that the images must have; any number if None.
        layout: what the folders mean, files: pattern of the files to take; not for shards.
        exclude: file of the names of images to leave out; not for shards.
        renderings: number in the table that is the same for all images of a lens, as of `renderings_of`; None: each
            image is one of its own. Not for shards.
        workers, shuffle_buffer: processes that read shards, and images among which each draws the next one.
        quarantine: tab-separated file to list unusable images in (name, reason).

    Raises: InputError if the images cannot be used, or none remains.
    """
    if are_shards(path):
        if exclude is not None:
            raise InputError(
                f"exclude={exclude} cannot leave images out of shards, which are streamed; write shards without them, "
                "or give a folder that holds the shards, which is packed"
            )
        if files is not None:
            raise InputError(f"files={files} chooses files of a folder; shards are streamed whole, leave it out")
        if renderings is not None:
            raise InputError(
                f"renderings={renderings} brings images of a lens together; shards are streamed one by one, give a "
                "folder or a pack"
            )
        return find_shards(
            path,
            policy=policy,
            in_channels=in_channels,
            workers=workers,
            shuffle_buffer=shuffle_buffer,
            quarantine=quarantine,
        )
    images = load_images(
        Path(path), in_channels=in_channels, quarantine=quarantine, policy=policy, layout=layout, files=files
    )
    kept = to_train_on(_without(images, exclude))
    return kept if renderings is None else renderings_of(kept, renderings)


def to_train_on(images: ImageSet) -> ImageSet:
    """All images but those that the set itself holds out for tests.

    Raises: InputError if it holds out every image.
    """
    division = own_division(images, None)
    if division is None:
        return images
    rest, held_out = division
    if not len(held_out):  # all of them are excluded as well
        return images
    logger.info("%d images held out for tests are left out of pretraining", len(held_out))
    return rest


def _without(images: ImageSet, exclude: Path | None) -> ImageSet:
    if exclude is None:
        return images
    rest, excluded = divide(images, read_names(exclude))
    logger.info("%s: %d images left out, %d remain", exclude, len(excluded), len(rest))
    return rest
