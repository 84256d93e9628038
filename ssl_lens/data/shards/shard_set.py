"""Sets of tar shards that are read while they are used: larger than a disk, on this machine or elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np

from ssl_lens.data.formats import tar_file
from ssl_lens.data.formats.reader import MEMBER_SUFFIXES, images_in
from ssl_lens.data.formats.sample import UnreadableImage
from ssl_lens.data.formats.tar_file import Entry
from ssl_lens.data.pixels.policy import PixelPolicy, check_channels, usable
from ssl_lens.data.pixels.preprocess import evenly_spaced
from ssl_lens.data.shards.shard_file import ShardFile, shown
from ssl_lens.data.shards.shard_list import SIZES, Shard, list_shards, whole_tar
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

MOST_BAD, JUDGED_FROM = 0.01, 1000  # of the images read, and from how many on

_SAMPLED_SHARDS = 64
_TRIED_FOR_SHAPE = 100  # images
_SAMPLED_IMAGES = 4096


@dataclass(frozen=True)
class ShardSet:
    """Images in shards; image i is counted through the shards in their order.

    Attributes:
        shape: [C, H, W] of every image.
        policy: which pixels are flagged, and what becomes of images of unequal size.
    """

    shards: tuple[Shard, ...]
    shape: tuple[int, int, int]
    policy: PixelPolicy

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    @property
    def names(self) -> ShardNames:
        return ShardNames(self.shards)

    def listing(self) -> dict[str, Any]:
        """What tells these images from others, ready for JSON."""
        return {"shards": {shard.name: shard.count for shard in self.shards}}

    def decoded(self, entry: Entry) -> np.ndarray:
        """The pixels of an entry, ready for use: float32 [C, H, W].

        Raises: UnreadableImage: damaged, constant, too many flagged pixels, or another shape.
        """
        image = _decoded(entry, self.policy)
        if image.shape != self.shape:
            raise UnreadableImage(f"shape {image.shape}, not {self.shape}")
        return image

    def sample(self, limit_bytes: int) -> np.ndarray:
        """Raw images [n, C, H, W] to fit to: at most 4096 and `limit_bytes`, of at most 64 evenly spaced shards.

        They are spaced evenly within a local shard; of a remote one they are the first, or all of it would be fetched.

        Raises: InputError if more than 1 % of at least 1000 images are unusable.
        """
        size = 4 * int(np.prod(self.shape))
        wanted = max(1, min(_SAMPLED_IMAGES, limit_bytes // size))
        images, bad = [], []
        for name, entry in islice(_spread(self.shards, wanted), wanted):
            try:
                images.append(self.decoded(entry))
            except UnreadableImage as error:
                bad.append(f"{name}: {error}")
            refuse_many_bad(bad, len(images) + len(bad))
        if not images:
            raise InputError(f"none of {len(bad)} images tried is usable, such as {bad[0]}; mend the shards")
        return np.stack(images)


@dataclass(frozen=True)
class ShardNames(Sequence[str]):
    """Names of the images of a set, `shard.tar#000123`, made when asked for."""

    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    def __getitem__(self, index: int) -> str:
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


def refuse_many_bad(bad: Sequence[str], seen: int) -> None:
    """Raises InputError where the bad images, with their reasons, are more than 1 % of at least 1000 seen."""
    if seen >= JUDGED_FROM and len(bad) > MOST_BAD * seen:
        raise InputError(
            f"{len(bad)} of {seen} images read from the shards are unusable, such as {bad[0]}; mend the shards, since "
            f"at most {MOST_BAD:.0%} are left out"
        )


def find_shards(pattern: str, *, policy: PixelPolicy, in_channels: int | None = None) -> ShardSet:
    """The set of a path, URL or brace pattern such as `shards/{000..099}.tar`.

    Args:
        in_channels: channels that the images must have; any number if None.
    Raises:
        InputError: as `list_shards`; images of another number of channels; or sizes to be made equal to the others' in
            a set that is not looked through.
    """
    if policy.sizes != "refuse" and policy.size is None:
        raise InputError(
            f"data.sizes={policy.sizes} of streamed shards needs the size; set data.size to a side in pixels"
        )
    shards = list_shards(pattern)
    shape = _first_shape(shards, policy)
    check_channels(pattern, shape[0], in_channels)
    found = ShardSet(shards, shape, policy)
    logger.info("%s: %d images of shape %s in %d shards, streamed", pattern, len(found), shape, len(shards))
    return found


def read_entries(shard: Shard, start: int, stop: int, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Entry]]:
    """Place and sample of the wanted images of a shard from `start` to `stop`.

    Raises: InputError: the shard cannot be read, is no tar, or holds fewer images than was said.
    """
    place = -1
    with ShardFile(shard.url) as file:
        samples = tar_file.entries(file, MEMBER_SUFFIXES, lambda i: start <= i < stop and wanted(i))
        for place, entry in enumerate(whole_tar(samples, shard.url)):
            if place >= start and wanted(place):
                yield place, entry
            if place + 1 == stop:
                return
    raise InputError(
        f"{shown(shard.url)} holds {place + 1} images but should hold {shard.count}; correct {SIZES} or the shard"
    )


def _decoded(entry: Entry, policy: PixelPolicy) -> np.ndarray:
    image, _ = usable(tar_file.image_of(entry, images_in).image, policy)
    return image


def _first_shape(shards: Sequence[Shard], policy: PixelPolicy) -> tuple[int, int, int]:
    """That of the first usable image: of a set that is not looked through, it is the rule for the others."""
    reasons = []
    for name, entry in _spread(shards, _TRIED_FOR_SHAPE):
        try:
            return _decoded(entry, policy).shape
        except UnreadableImage as error:
            reasons.append(f"{name}: {error}")
    raise InputError(f"none of {len(reasons)} images tried is usable, such as {reasons[0]}; give other shards")


def _spread(shards: Sequence[Shard], wanted: int) -> Iterator[tuple[str, Entry]]:
    """Names and samples of at most about `wanted` images, spread over the set."""
    chosen = [shards[i] for i in evenly_spaced(len(shards), min(_SAMPLED_SHARDS, wanted))]
    for shard in chosen:
        count = min(shard.count, -(-wanted // len(chosen)))
        places = set(range(count) if "://" in shard.url else evenly_spaced(shard.count, count).tolist())
        for place, entry in read_entries(shard, 0, max(places) + 1, places.__contains__):
            yield image_name(shard, place), entry
