"""Sets of tar shards that are read while they are used: larger than a disk, on this machine or elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_lens.data.folders.layouts import labels_and_parts
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.formats import tar_file
from ssl_lens.data.formats.planes import left_out_line
from ssl_lens.data.formats.reader import MEMBER_SUFFIXES, images_in
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.formats.tar_file import Entry
from ssl_lens.data.pixels.policy import PixelPolicy, apply_policy, check_channels
from ssl_lens.data.pixels.preprocess import evenly_spaced
from ssl_lens.data.quarantine import Unusable, judge_stream
from ssl_lens.data.shards.shard_file import ShardFile, public_url
from ssl_lens.data.shards.shard_list import SIZES, Shard, list_shards, whole_tar
from ssl_lens.errors import InputError

if TYPE_CHECKING:
    import torch

    from ssl_lens.data.batches import Batches, Plan

logger = logging.getLogger(__name__)

_SAMPLED_SHARDS = 64
_TRIED_FOR_SHAPE = 100  # images
_SAMPLED_IMAGES = 4096
_SAMPLED_BYTES = 512 << 20  # of raw images, held at once


@dataclass(frozen=True)
class ShardSet:
    """Images in shards, an `ImageSource`; image i is counted through the shards in their order.

    Attributes:
        shape: [C, H, W] of every image.
        policy: which pixels are flagged, and what becomes of images of unequal size.
        workers: processes that read batches on each rank; 0: the rank reads itself.
        shuffle_buffer: images among which a worker draws the next one.
        quarantine: tab-separated file to list images in that turn out unusable (name, reason).
    """

    shards: tuple[Shard, ...]
    shape: tuple[int, ...]
    policy: PixelPolicy
    workers: int
    shuffle_buffer: int
    quarantine: Path | None

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    @property
    def names(self) -> ShardNames:
        return ShardNames(self.shards)

    @property
    def renderings(self) -> int:
        """Images of each object."""
        return 1

    @property
    def noise(self) -> None:
        """Not known before the images are read."""
        return None

    def listing(self) -> dict[str, Any]:
        """What distinguishes these images from others, ready for JSON."""
        return {"shards": {shard.name: shard.count for shard in self.shards}}

    def batches(self, plan: Plan, device: torch.device) -> Batches:
        """Batches read while they are used; see `Stream`."""
        from ssl_lens.data.shards.stream import Stream  # which reads this set

        return Stream(self, plan, device)

    def decode(self, entry: Entry) -> np.ndarray:
        """The pixels of an entry, ready for use: float32 [C, H, W].

        Raises: UnusableImage: damaged, constant, too many flagged pixels, or another shape.
        """
        image = _decode(entry, self.policy)
        if image.shape != self.shape:
            raise UnusableImage(f"shape {image.shape}, not {self.shape}")
        return image

    def sample(self, limit_bytes: int = _SAMPLED_BYTES) -> np.ndarray:
        """Raw images [n, C, H, W] to fit to: at most 4096 and `limit_bytes`, of at most 64 evenly spaced shards.

        They are spaced evenly within a local shard; of a remote one they are the first, or all of it would be fetched.

        Raises: InputError if more than 1 % of at least 1000 images are unusable.
        """
        size = 4 * int(np.prod(self.shape))
        wanted = max(1, min(_SAMPLED_IMAGES, limit_bytes // size))
        images: list[np.ndarray] = []
        unusable: list[Unusable] = []
        for name, entry in islice(_spread(self.shards, wanted), wanted):
            try:
                images.append(self.decode(entry))
            except UnusableImage as error:
                unusable.append(Unusable(name, str(error)))
            judge_stream(unusable, len(images) + len(unusable))
        if not images:
            raise InputError(
                f"none of {len(unusable)} images tried is usable, such as {unusable[0]}; repair the shards"
            )
        return np.stack(images)


@dataclass(frozen=True)
class ShardNames(Sequence[str]):
    """Names of the images of a set, `shard.tar#000123`, made when asked for."""

    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]  # without slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        offsets = offsets_of(self.shards)
        shard = int(np.searchsorted(offsets, index, side="right")) - 1
        return image_name(self.shards[shard], int(index) - int(offsets[shard]))


def image_name(shard: Shard, place: int) -> str:
    """The name of the image at a place of a shard, counted from 0."""
    return f"{shard.name}#{place:06d}"


def offsets_of(shards: Sequence[Shard]) -> np.ndarray:
    """Index of the first image of every shard [n], int64."""
    return np.array(list(accumulate((shard.count for shard in shards[:-1]), initial=0)), dtype=np.int64)


def find_shards(
    pattern: str,
    *,
    policy: PixelPolicy,
    in_channels: int | None = None,
    workers: int = 0,
    shuffle_buffer: int = 1000,
    quarantine: Path | None = None,
) -> ShardSet:
    """The set of a path, URL or brace pattern such as `shards/{000..099}.tar`.

    Args:
        in_channels: channels that the images must have; any number if None.
        workers, shuffle_buffer, quarantine: as of `ShardSet`.
    Raises:
        InputError: as `list_shards`; images of another number of channels; or sizes to be made equal to the others' in
            a set that is not looked through.
    """
    if policy.sizes != "refuse" and policy.size is None:
        raise InputError(
            f"sizes={policy.sizes} of streamed shards needs the size as well, such as size=64: the side in pixels"
        )
    shards = list_shards(pattern)
    shape = _first_shape(shards, policy)
    check_channels(pattern, shape[0], in_channels)
    found = ShardSet(shards, shape, policy, workers, shuffle_buffer, quarantine)
    logger.info("%s: %d images of shape %s in %d shards, streamed", pattern, len(found), shape, len(shards))
    return found


def read_entries(shard: Shard, start: int, stop: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Entry]]:
    """Place and sample of the wanted images of a shard from `start` to `stop`.

    Raises: InputError: the shard cannot be read, is not a tar, holds fewer images than was said, or one that its name
        holds out for tests.
    """
    place = -1
    with ShardFile(shard.url) as file:
        samples = tar_file.entries(file, MEMBER_SUFFIXES, lambda i: start <= i < stop and wanted(i))
        for place, entry in enumerate(whole_tar(samples, shard.url)):
            if place >= start and wanted(place):
                _refuse_held_out(shard, entry)
                yield place, entry
            if place + 1 == stop:
                return
    raise InputError(
        f"{public_url(shard.url)} holds {place + 1} images but should hold {shard.count}; correct {SIZES} or the shard"
    )


def _refuse_held_out(shard: Shard, entry: Entry) -> None:
    (part,) = labels_and_parts((entry.file,), "auto")[1]
    if part not in (None, TRAIN):
        raise InputError(
            f"{public_url(shard.url)} holds {entry.file}, which its name keeps for tests; stream shards without such "
            "images, or give the folder that holds the shards, which tells them apart"
        )


def _decode(entry: Entry, policy: PixelPolicy) -> np.ndarray:
    return apply_policy(_sample(entry, policy).image, policy)[0]


def _sample(entry: Entry, policy: PixelPolicy) -> Sample:
    return tar_file.image_of(entry, partial(images_in, choice=policy.choice))


def _first_shape(shards: Sequence[Shard], policy: PixelPolicy) -> tuple[int, int, int]:
    """That of the first usable image: of a set that is not looked through, it is the rule for the others."""
    unusable = []
    for name, entry in _spread(shards, _TRIED_FOR_SHAPE):
        try:
            sample = _sample(entry, policy)
            shape = apply_policy(sample.image, policy)[0].shape
            if sample.left_out:
                logger.info("%s: %s", name, left_out_line(Counter(sample.left_out)))
            return shape
        except UnusableImage as error:
            unusable.append(Unusable(name, str(error)))
    raise InputError(f"none of {len(unusable)} images tried is usable, such as {unusable[0]}; give other shards")


def _spread(shards: Sequence[Shard], wanted: int) -> Iterator[tuple[str, Entry]]:
    """Names and samples of at most about `wanted` images, spread over the set."""
    chosen = [shards[i] for i in evenly_spaced(len(shards), min(_SAMPLED_SHARDS, wanted))]
    for shard in chosen:
        count = min(shard.count, -(-wanted // len(chosen)))
        places = set(range(count) if "://" in shard.url else evenly_spaced(shard.count, count).tolist())
        for place, entry in read_entries(shard, 0, max(places) + 1, places.__contains__):
            yield image_name(shard, place), entry
