"""Batches: a function of (seed, step), shared over ranks without overlap."""

import numpy as np
import pytest
import torch

from ssl_lens.data.array_batches import ArrayBatches
from ssl_lens.data.batches import Plan
from ssl_lens.errors import InputError

IMAGES = np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1) * np.ones((10, 1, 2, 2), np.float32)


def batches(
    rank: int = 0, world_size: int = 1, accumulate: int = 1, seed: int = 0, batch_size: int = 4
) -> ArrayBatches:
    return ArrayBatches(IMAGES, Plan(batch_size, accumulate, seed, rank, world_size), torch.device("cpu"))


def seen(source: ArrayBatches, step: int) -> list[int]:
    return [i for _, index in source.at(step) for i in index.tolist()]


def test_an_epoch_sees_every_image_once_and_drops_the_rest() -> None:
    one = batches()
    assert one.steps_per_epoch == 2
    indices = seen(one, 0) + seen(one, 1)
    assert len(set(indices)) == 8
    assert sorted(seen(one, 2) + seen(one, 3)) != sorted(indices) or seen(one, 2) != seen(one, 0)


def test_images_are_those_of_the_index() -> None:
    for raw, index in batches(accumulate=2).at(1):
        assert raw.shape == (2, 1, 2, 2)
        assert torch.equal(raw[:, 0, 0, 0], index.float())


def test_any_step_can_be_read_first() -> None:
    in_order = batches()
    expected = [seen(in_order, step) for step in range(6)]
    assert [seen(batches(), step) for step in range(6)] == expected
    assert [seen(batches(seed=1), step) for step in range(6)] != expected


def test_ranks_and_micro_batches_share_the_same_global_batch() -> None:
    whole = [seen(batches(), step) for step in range(4)]
    shared = [[i for rank in range(2) for i in seen(batches(rank, 2, accumulate=2), step)] for step in range(4)]
    assert whole == shared


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size=11 exceeds the 10 images; set batch_size to 10 or less"):
        batches(batch_size=11)


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(InputError, match="not a multiple of 3 processes x accumulate=1"):
        batches(world_size=3)
