"""The values of a step: the optimiser's own, and the method's."""

import math
from typing import NamedTuple

import pytest

from ssl_lens.engine.schedule import Now, Schedule


class Own(NamedTuple):
    step: int


class OwnSchedule:
    def at(self, step: int) -> Own:
        return Own(step)


def test_values_of_a_step() -> None:
    schedule = Schedule(
        epochs=4,
        steps_per_epoch=5,
        lr=1e-3,
        final_lr=1e-6,
        lr_warmup_epochs=1,
        weight_decay=0.04,
        final_weight_decay=0.4,
        method=OwnSchedule(),
    )
    assert schedule.total_steps == 20
    assert schedule.at(0) == Now(0.0, pytest.approx(0.04), Own(0))
    assert schedule.at(5).lr == 1e-3
    last = schedule.at(19)
    assert last.lr == pytest.approx(1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * 14 / 15)), rel=1e-12)
    assert last.weight_decay == pytest.approx(0.4 - 0.18 * (1 + math.cos(math.pi * 19 / 20)), rel=1e-12)
    assert last.numbers() == {"lr": last.lr, "weight_decay": last.weight_decay, "step": 19.0}
    assert [type(value) for value in last.numbers().values()] == [float] * 3  # so that they can be logged as JSON
