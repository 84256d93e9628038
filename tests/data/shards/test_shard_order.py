"""Who sees which image of an epoch."""

import itertools

import numpy as np
import pytest

from ssl_lens.data.shards.shard_list import Shard
from ssl_lens.data.shards.shard_order import Split, draw_order

COUNTS = (7, 1, 13, 5, 11, 27, 8)  # 72 images
SHARDS = tuple(Shard(f"{i}.tar", f"{i}.tar", count) for i, count in enumerate(COUNTS))


def split(world_size: int = 1, workers: int = 1, accumulate: int = 1, batch_size: int = 36, seed: int = 0) -> Split:
    return Split(SHARDS, seed, batch_size, accumulate, world_size, workers, buffer=4)


def read_by(one: Split, epoch: int, rank: int, worker: int) -> list[int]:
    return [part.index + i for part in one.parts(epoch, rank, worker) for i in range(part.stop - part.start)]


@pytest.mark.parametrize(
    ("world_size", "workers", "accumulate"), list(itertools.product((1, 2, 3, 4), (1, 2, 3, 5), (1, 3)))
)
def test_every_image_is_seen_once_over_all_ranks_and_workers(world_size, workers, accumulate):
    one = split(world_size, workers, accumulate)
    assert one.steps_per_epoch == 2
    for epoch in range(3):
        shares = [[read_by(one, epoch, rank, worker) for worker in range(workers)] for rank in range(world_size)]
        seen = [index for rank in shares for worker in rank for index in worker]
        assert sorted(seen) == list(range(72))
        assert [sum(map(len, rank)) for rank in shares] == [72 // world_size] * world_size
        turns = [one.turns(epoch, worker) for worker in range(workers)]
        first = epoch * 2 * accumulate
        assert sorted(itertools.chain(*turns)) == list(range(first, first + 2 * accumulate))
        for rank in shares:
            assert [len(worker) for worker in rank] == [len(turn) * one.micro_batch for turn in turns]
        assert all(turn % workers == worker for worker in range(workers) for turn in turns[worker])


def test_what_no_batch_holds_is_left_out_and_changes_from_epoch_to_epoch():
    one = split(batch_size=10)
    assert one.steps_per_epoch == 7
    seen = [read_by(one, epoch, 0, 0) for epoch in range(6)]
    assert [len(set(epoch)) for epoch in seen] == [70] * 6
    assert len(set(itertools.chain(*seen))) == 72


def test_epochs_and_seeds_read_the_shards_in_another_order():
    orders = {
        tuple(part.shard.name for part in split(seed=seed).parts(epoch, 0, 0))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_parts_lie_where_the_shards_lie():
    for part in split(world_size=3, workers=2).parts(1, 2, 1):
        assert 0 <= part.start < part.stop <= part.shard.count
        assert part.index - part.start == sum(COUNTS[: SHARDS.index(part.shard)])


def test_the_buffer_bounds_how_far_ahead_is_read():
    order = draw_order(1000, 50, np.random.default_rng(0))
    assert sorted(order) == list(range(1000))
    ahead = order - np.arange(1000)
    assert ahead.max() == 49
    assert ahead.min() < -100, "some wait long"
    assert abs(ahead).mean() > 20
    np.testing.assert_array_equal(draw_order(20, 1, np.random.default_rng(0)), np.arange(20))
    assert sorted(draw_order(3, 50, np.random.default_rng(0))) == [0, 1, 2]
    assert len(draw_order(0, 50, np.random.default_rng(0))) == 0


def test_ranks_workers_and_epochs_draw_differently():
    one = split(world_size=2, workers=2)
    orders = [tuple(one.order(epoch, rank, worker)) for epoch in (0, 1) for rank in (0, 1) for worker in (0, 1)]
    assert len(set(orders)) == 8
