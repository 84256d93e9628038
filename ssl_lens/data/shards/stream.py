"""Batches of images that are read from shards while they are used; the same interface as `Batches`."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ssl_lens.data.batches import Plan
from ssl_lens.data.formats.sample import UnreadableImage
from ssl_lens.data.formats.tar_file import Entry
from ssl_lens.data.shards.shard_order import Part, Split
from ssl_lens.data.shards.shard_set import ShardSet, image_name, read_entries, refuse_many_bad
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

_MOST_BAD_IN_A_ROW = 100


class _Found(NamedTuple):
    """One image as it was read: its pixels [C, H, W], or None and why not."""

    index: int
    name: str
    image: np.ndarray | None
    reason: str


class _MicroBatch(NamedTuple):
    """Raw images [b, C, H, W], their indices [b], and names and reasons of images that are replaced."""

    raw: np.ndarray
    index: np.ndarray
    replaced: tuple[tuple[str, str], ...]


class Stream:
    """Reads batches of raw images from shards, some batches ahead, in processes of their own.

    Which images a step sees is a pure function of the seed, the step, and the numbers of ranks and workers. An image
    that is unusable is replaced by the next good one of its worker, and named in a warning and in `quarantine`.

    Args:
        workers: reading processes of this rank; 0 reads in this one.
        buffer: images among which a worker draws the next one; they are held as they are stored.
        quarantine: tab-separated file to which images that are replaced are added (name, reason).

    Raises: InputError if a batch is larger than the set or is not shared evenly.
    """

    def __init__(
        self, shards: ShardSet, plan: Plan, device: torch.device, *, workers: int, buffer: int, quarantine: Path
    ) -> None:
        plan.check(len(shards))
        self.split = Split(
            shards.shards, plan.seed, plan.batch_size, plan.accumulate, plan.world_size, max(workers, 1), buffer
        )
        self.steps_per_epoch = self.split.steps_per_epoch
        self._shards, self._rank, self._device, self._workers = shards, plan.rank, device, workers
        self._quarantine = quarantine
        self._named = _names_in(quarantine)
        self._loaded: Iterator[_MicroBatch | InputError] | None = None
        self._step, self._batches = -1, []

    def micro_batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(raw images [b, C, H, W], their indices [b]) of this rank, b = batch_size / (world_size · accumulate).

        Raises: InputError: a shard cannot be read, or too many images are unusable.
        """
        if step != self._step:  # a step is asked for again to be looked into
            if self._loaded is None or step != self._step + 1:
                self._start(step)
            self._batches = [self._next() for _ in range(self.split.accumulate)]
            self._step = step
        return self._batches

    def close(self) -> None:
        """Ends the reading processes."""
        self._loaded = None

    def _start(self, step: int) -> None:
        self.close()
        loader = DataLoader(
            _MicroBatches(self._shards, self.split, self._rank, step * self.split.accumulate),
            batch_size=None,
            num_workers=self._workers,
            collate_fn=_as_it_is,  # arrays go through a pipe: the shared memory of containers is often too small
            worker_init_fn=_leave_interrupts_to_the_run,
            multiprocessing_context=_context() if self._workers else None,
            generator=torch.Generator(),  # its own, since the run's decides dropped paths
        )
        self._loaded = iter(loader)

    def _next(self) -> tuple[Tensor, Tensor]:
        try:
            batch = next(self._loaded)
        except RuntimeError as error:
            self.close()
            if "exited unexpectedly" not in str(error):
                raise
            raise InputError(
                "a reading process was ended from outside, perhaps for want of memory; lower data.workers or "
                "data.shuffle_buffer"
            ) from error
        if isinstance(batch, InputError):
            self.close()
            raise batch
        for name, reason in batch.replaced:
            self._report(name, reason)
        return torch.from_numpy(batch.raw).to(self._device), torch.from_numpy(batch.index).to(self._device)

    def _report(self, name: str, reason: str) -> None:
        if name in self._named:
            return
        self._named.add(name)
        logger.warning("%s is unusable and replaced by the next image: %s", name, reason)
        self._quarantine.parent.mkdir(parents=True, exist_ok=True)
        with self._quarantine.open("a", encoding="utf-8") as lines:
            lines.write(f"{name}\t{reason}\n")


@dataclass(frozen=True)
class _MicroBatches(IterableDataset):
    """The micro-batches of a rank from the `first` of the run on, without end, for the workers of torch's loader.

    An error that the user has to see is the last item: raised, the loader would wrap it in a traceback.
    """

    shards: ShardSet
    split: Split
    rank: int
    first: int

    def __iter__(self) -> Iterator[_MicroBatch | InputError]:
        info = get_worker_info()
        # The loader asks its first worker first, whichever micro-batch that is.
        worker = ((0 if info is None else info.id) + self.first) % self.split.workers
        try:
            yield from micro_batches(self.shards, self.split, self.rank, worker, self.first)
        except InputError as error:
            yield InputError(str(error))


def micro_batches(shards: ShardSet, split: Split, rank: int, worker: int, first: int) -> Iterator[_MicroBatch]:
    """The micro-batches of a worker from the `first` of the run on, without end.

    Raises: InputError as `Stream.micro_batches`.
    """
    images = _images(shards, split, rank, worker, first)
    ahead: list[_Found] = []  # read to replace bad ones before them
    bad, seen = [], 0

    def following() -> _Found:
        nonlocal seen
        found = next(images)
        seen += 1
        if found.image is None:
            bad.append(f"{found.name}: {found.reason}")
        refuse_many_bad(bad, seen)
        return found

    while True:
        batch, replaced = [], []
        for _ in range(split.micro_batch):
            found = ahead.pop(0) if ahead else following()
            if found.image is None:
                replaced.append((found.name, found.reason))
                found = _next_good(ahead, following)
            batch.append(found)
        yield _MicroBatch(
            np.stack([found.image for found in batch]),
            np.array([found.index for found in batch], dtype=np.int64),
            tuple(replaced),
        )


def _next_good(ahead: list[_Found], following: Callable[[], _Found]) -> _Found:
    """The next good image, which stays in its own place as well, so that a bad one moves no other."""
    for found in ahead:
        if found.image is not None:
            return found
    while len(ahead) < _MOST_BAD_IN_A_ROW:
        ahead.append(following())
        if ahead[-1].image is not None:
            return ahead[-1]
    raise InputError(
        f"{len(ahead)} images in a row are unusable, such as {ahead[0].name}: {ahead[0].reason}; mend the shards"
    )


def _images(shards: ShardSet, split: Split, rank: int, worker: int, first: int) -> Iterator[_Found]:
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
                at, *rest = next(reading)
                held[at] = tuple(rest)
            index, name, entry = held.pop(place)
            try:
                yield _Found(index, name, shards.decoded(entry), "")
            except UnreadableImage as error:
                yield _Found(index, name, None, str(error))


def _read(parts: list[Part], wanted: np.ndarray) -> Iterator[tuple[int, int, str, Entry]]:
    """Place in reading order, index, name and sample of the wanted images; others are passed over unread."""
    begin = 0
    for part in parts:
        shift, stop = begin - part.start, begin + part.stop - part.start
        if wanted[begin:stop].any():
            for place, entry in read_entries(
                part.shard, part.start, part.stop, lambda i, shift=shift: wanted[i + shift]
            ):
                yield place + shift, part.index + place - part.start, image_name(part.shard, place), entry
        begin = stop


def _names_in(quarantine: Path) -> set[str]:
    if not quarantine.is_file():
        return set()
    return {line.partition("\t")[0] for line in quarantine.read_text(encoding="utf-8").splitlines()}


def _as_it_is(batch: _MicroBatch | InputError) -> _MicroBatch | InputError:
    return batch


def _leave_interrupts_to_the_run(worker: int) -> None:
    """Ctrl-C reaches all processes; the run finishes its step, for which it needs its readers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _context() -> multiprocessing.context.BaseContext:
    """Starts readers from a fresh process: a fork of this one would copy held locks and the GPU's state."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_lens.engine.trainer"])  # what the run's script imports: once for all readers
    return context
