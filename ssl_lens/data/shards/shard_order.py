"""In which order the images of shards are seen, and by whom: a pure function of (seed, epoch, rank, worker)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_lens.data.shards.shard_list import Shard


@dataclass(frozen=True)
class Part:
    """The images of one shard from `start` to `stop`; `index` is that of the image at `start` in the whole set."""

    shard: Shard
    start: int
    stop: int
    index: int


@dataclass(frozen=True)
class Split:
    """Shares an epoch out to ranks and their workers.

    In an epoch the shards lie one after the other in an order drawn from (seed, epoch), cut to whole batches. Every
    rank has an equal contiguous piece, and every worker a contiguous piece of that, in micro-batches that a rank takes
    from its workers in turn. A shard that lies across a border is read by both sides.

    Attributes:
        batch_size: images per step over all ranks and micro-batches.
        workers: of each rank, 1 or more.
        buffer: images among which a worker draws the next one.
    """

    shards: tuple[Shard, ...]
    seed: int
    batch_size: int
    accumulate: int
    world_size: int
    workers: int
    buffer: int

    @property
    def steps_per_epoch(self) -> int:
        return sum(shard.count for shard in self.shards) // self.batch_size

    @property
    def micro_batches_per_epoch(self) -> int:
        """Of one rank."""
        return self.steps_per_epoch * self.accumulate

    @property
    def micro_batch(self) -> int:
        """Images."""
        return self.batch_size // (self.world_size * self.accumulate)

    def turns(self, epoch: int, worker: int) -> range:
        """The micro-batches of a worker in an epoch, counted from the start of the run: every `workers`-th."""
        first = epoch * self.micro_batches_per_epoch
        return range(first + (worker - first) % self.workers, first + self.micro_batches_per_epoch, self.workers)

    def parts(self, epoch: int, rank: int, worker: int) -> list[Part]:
        """What a worker reads in an epoch, in the order in which it is read."""
        share = self.steps_per_epoch * self.batch_size // self.world_size
        before = sum(len(self.turns(epoch, other)) for other in range(worker))
        start = rank * share + before * self.micro_batch
        stop = start + len(self.turns(epoch, worker)) * self.micro_batch
        counts = np.array([shard.count for shard in self.shards], dtype=np.int64)
        offsets = np.cumsum(counts) - counts
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards))
        ends = np.cumsum(counts[order])
        parts = []
        for place in range(int(np.searchsorted(ends, start, side="right")), len(order)):
            shard, begin = self.shards[order[place]], int(ends[place] - counts[order[place]])
            if begin >= stop:
                break
            first, last = max(start - begin, 0), min(stop - begin, shard.count)
            parts.append(Part(shard, first, last, int(offsets[order[place]]) + first))
        return parts

    def order(self, epoch: int, rank: int, worker: int) -> np.ndarray:
        """The order in which a worker gives the images that it reads: place in reading order [n], int64.

        The next image is drawn from a buffer of the next ones to be read, so that the i-th is read at most `buffer`
        images ahead.
        """
        count = len(self.turns(epoch, worker)) * self.micro_batch
        return draw_order(count, self.buffer, np.random.default_rng((self.seed, epoch, rank, worker)))


def draw_order(count: int, buffer: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation [count] whose i-th value is below i + `buffer`."""
    held = list(range(min(buffer, count)))
    order = np.empty(count, np.int64)
    streamed = count - len(held)
    for i, slot in enumerate(rng.integers(buffer, size=streamed).tolist()):
        order[i] = held[slot]
        held[slot] = i + buffer
    order[streamed:] = rng.permutation(np.array(held, dtype=np.int64))
    return order
