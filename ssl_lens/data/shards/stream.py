"""Batches of images that are read from shards while they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.batches import Plan
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.formats.tar_file import Entry
from ssl_lens.data.quarantine import Unusable, add_to_quarantine, judge_stream, read_quarantine
from ssl_lens.data.shards.readers import ReaderKilledError, Readers
from ssl_lens.data.shards.shard_order import Part, Split
from ssl_lens.data.shards.shard_set import ShardSet, image_name, read_entries
from ssl_lens.errors import InputError
from ssl_lens.transfer import sent

logger = logging.getLogger(__name__)

_MOST_UNUSABLE_IN_A_ROW = 100


@dataclass(frozen=True)
class _Image:
    """One image as it was read: its place in the set and its pixels [C, H, W]."""

    index: int
    pixels: np.ndarray


@dataclass(frozen=True)
class _MicroBatch:
    """Raw images [b, C, H, W], their indices [b], and the images that were replaced."""

    raw: np.ndarray
    index: np.ndarray
    replaced: tuple[Unusable, ...]


class Stream:
    """`Batches` of raw images read from shards, some batches ahead, in processes of their own.

    Which images a step sees is a pure function of the seed, the step, and the numbers of ranks and workers. An image
    that is unusable is replaced by the next good one of its worker, and named in a warning and in the set's quarantine.
    Images among which a worker draws the next one are held as they are stored.

    Raises: InputError if a batch is larger than the set or is not shared evenly.
    """

    def __init__(self, shards: ShardSet, plan: Plan, device: torch.device) -> None:
        plan.check(len(shards))
        self.split = Split(
            shards.shards,
            plan.seed,
            plan.batch_size,
            plan.accumulate,
            plan.world_size,
            max(shards.workers, 1),
            shards.shuffle_buffer,
        )
        self.steps_per_epoch = self.split.steps_per_epoch
        self._shards, self._rank, self._device = shards, plan.rank, device
        self._named = {image.name for image in read_quarantine(shards.quarantine)} if shards.quarantine else set()
        self._loaded: Iterator[_MicroBatch | InputError] | None = None
        self._readers: Readers[_MicroBatch | InputError] | None = None
        self._step = -1
        self._batches: list[tuple[Tensor, Tensor]] = []

    def at(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(raw images [b, C, H, W], their indices [b]) of this rank, b = batch_size / (world_size · accumulate).

        Raises: InputError: a shard cannot be read, or too many images are unusable.
        """
        if step != self._step:  # a step is asked for again to be looked into
            loaded = self._loaded
            if loaded is None or step != self._step + 1:
                loaded = self._loaded = self._start(step)
            self._batches = [self._next(loaded) for _ in range(self.split.accumulate)]
            self._step = step
        return self._batches

    def close(self) -> None:
        """Ends the reading processes."""
        if self._readers is not None:
            self._readers.close()
        self._loaded = self._readers = None

    def _start(self, step: int) -> Iterator[_MicroBatch | InputError]:
        self.close()
        make = partial(_micro_batches_to_an_error, self._shards, self.split, self._rank, step * self.split.accumulate)
        if not self._shards.workers:
            return make(0)
        self._readers = Readers(make, self._shards.workers)
        return self._readers

    def _next(self, loaded: Iterator[_MicroBatch | InputError]) -> tuple[Tensor, Tensor]:
        try:
            batch = next(loaded)
        except ReaderKilledError:
            raise InputError(
                "a reading process was ended from outside, perhaps for lack of memory; lower "
                f"workers={self._shards.workers} or shuffle_buffer={self._shards.shuffle_buffer}"
            ) from None
        if isinstance(batch, InputError):
            self.close()
            raise batch
        for image in batch.replaced:
            self._report(image)
        return sent(torch.from_numpy(batch.raw), self._device), torch.from_numpy(batch.index)

    def _report(self, image: Unusable) -> None:
        if image.name in self._named:
            return
        self._named.add(image.name)
        logger.warning("%s is unusable and replaced by the next image: %s", *image)
        if self._shards.quarantine is not None:
            add_to_quarantine(self._shards.quarantine, image)


def _micro_batches_to_an_error(
    shards: ShardSet, split: Split, rank: int, first: int, reader: int
) -> Iterator[_MicroBatch | InputError]:
    """What a reader sends: an error that the user has to see is the last item.

    The first reader is asked first, whichever micro-batch that is.
    """
    try:
        yield from micro_batches(shards, split, rank, (reader + first) % split.workers, first)
    except InputError as error:
        yield InputError(str(error))


def micro_batches(shards: ShardSet, split: Split, rank: int, worker: int, first: int) -> Iterator[_MicroBatch]:
    """The micro-batches of a worker from the `first` of the run on, without end.

    Raises: InputError as `Stream.at`.
    """
    images = _images(shards, split, rank, worker, first)
    ahead: list[_Image | Unusable] = []  # read to replace unusable ones before them
    unusable: list[Unusable] = []
    seen = 0

    def read_next() -> _Image | Unusable:
        nonlocal seen
        image = next(images)
        seen += 1
        if isinstance(image, Unusable):
            unusable.append(image)
        judge_stream(unusable, seen)
        return image

    while True:
        batch: list[_Image] = []
        replaced: list[Unusable] = []
        for _ in range(split.micro_batch):
            image = ahead.pop(0) if ahead else read_next()
            if isinstance(image, Unusable):
                replaced.append(image)
                image = _next_usable(ahead, read_next)
            batch.append(image)
        yield _MicroBatch(
            np.stack([image.pixels for image in batch]),
            np.array([image.index for image in batch], dtype=np.int64),
            tuple(replaced),
        )


def _next_usable(ahead: list[_Image | Unusable], read_next: Callable[[], _Image | Unusable]) -> _Image:
    """The next usable image, which stays in its own place as well, so that an unusable one moves no other."""
    for image in ahead:
        if isinstance(image, _Image):
            return image
    while len(ahead) < _MOST_UNUSABLE_IN_A_ROW:
        image = read_next()
        ahead.append(image)
        if isinstance(image, _Image):
            return image
    raise InputError(f"{len(ahead)} images in a row are unusable, such as {ahead[0]}; repair the shards")


def _images(shards: ShardSet, split: Split, rank: int, worker: int, first: int) -> Iterator[_Image | Unusable]:
    """The images of a worker, one by one, from the first of its micro-batches that is not before `first`."""
    for epoch in count(first // split.micro_batches_per_epoch):
        turns = split.turns(epoch, worker)
        done = sum(turn < first for turn in turns) * split.micro_batch
        order = split.order(epoch, rank, worker)
        wanted = np.ones(len(order), bool)
        wanted[order[:done]] = False
        reading = _read(split.parts(epoch, rank, worker), wanted)
        held: dict[int, tuple[int, str, Entry]] = {}  # as stored, which is small
        for place in order[done:].tolist():
            while place not in held:
                at, index, name, entry = next(reading)
                held[at] = index, name, entry
            index, name, entry = held.pop(place)
            try:
                yield _Image(index, shards.decode(entry))
            except UnusableImage as error:
                yield Unusable(name, str(error))


def _read(parts: list[Part], wanted: np.ndarray) -> Iterator[tuple[int, int, str, Entry]]:
    """Place in reading order, index, name and sample of the wanted images; others are passed over unread."""
    begin = 0
    for part in parts:
        shift, stop = begin - part.start, begin + part.stop - part.start
        if wanted[begin:stop].any():
            here = wanted[begin:stop]
            for place, entry in read_entries(part.shard, part.start, part.stop, partial(_is_wanted, here, part.start)):
                yield place + shift, part.index + place - part.start, image_name(part.shard, place), entry
        begin = stop


def _is_wanted(wanted: np.ndarray, start: int, place: int) -> bool:
    return bool(wanted[place - start])
