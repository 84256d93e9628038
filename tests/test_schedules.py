import math

import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.schedules import Schedules, cosine, scaled_lr, teacher_temperature


def schedules(**changes) -> Schedules:
    numbers = {
        "epochs": 4,
        "steps_per_epoch": 5,
        "lr": 1e-3,
        "final_lr": 1e-6,
        "lr_warmup_epochs": 1,
        "weight_decay": 0.04,
        "final_weight_decay": 0.4,
        "ema_momentum": 0.99,
        "final_ema_momentum": 1.0,
        "teacher_temp": 0.07,
        "warmup_teacher_temp": 0.04,
        "teacher_temp_warmup_epochs": 3,
        "freeze_last_layer_epochs": 1,
    }
    return Schedules(**(numbers | changes))


def test_cosine_by_small_numbers():
    values = cosine(base=2.0, final=0.0, epochs=3, steps_per_epoch=2, warmup_epochs=1, start=1.0)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(values, [1, 2, 2, 1 + half, 1, 1 - half], rtol=0, atol=1e-15)


def test_cosine_may_rise_and_never_arrives():
    values = cosine(base=0.996, final=1.0, epochs=10, steps_per_epoch=7)
    assert values[0] == 0.996
    assert (np.diff(values) > 0).all()
    assert values[-1] < 1.0


def test_a_run_of_nothing_but_warm_up():
    np.testing.assert_allclose(cosine(1.0, 0.0, epochs=1, steps_per_epoch=3, warmup_epochs=1), [0, 0.5, 1])


def test_too_long_a_warm_up_is_one_line():
    with pytest.raises(InputError, match="warm-up of 10 epochs exceeds the run's 4"):
        schedules(lr_warmup_epochs=10)


def test_teacher_temperature_by_small_numbers():
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 3, 5), [0.04, 0.055, 0.07, 0.07, 0.07])
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 0, 2), [0.07, 0.07])
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 4, 2), [0.04, 0.05])


def test_values_of_a_step():
    plan = schedules()
    assert plan.total_steps == 20
    first, sixth, last = plan.at(0), plan.at(5), plan.at(19)
    assert first == pytest.approx((0.0, 0.04, 0.99, 0.04, True), abs=1e-15)
    assert (sixth.lr, sixth.teacher_temp, sixth.freeze_last_layer) == (1e-3, pytest.approx(0.055), False)
    assert last.lr == pytest.approx(1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * 14 / 15)), rel=1e-12)
    assert last.weight_decay == pytest.approx(0.4 - 0.18 * (1 + math.cos(math.pi * 19 / 20)), rel=1e-12)
    assert last.ema_momentum == pytest.approx(1 - 0.005 * (1 + math.cos(math.pi * 19 / 20)), rel=1e-12)
    assert last.teacher_temp == 0.07


def test_values_are_plain_numbers():
    """So that they can be logged as JSON and saved in a checkpoint."""
    assert [type(value) for value in schedules().at(0)] == [float, float, float, float, bool]


def test_golden_schedules(golden):
    data = np.load(golden / "schedules.npz", allow_pickle=False)
    for name in ("lr", "wd", "momentum"):
        base, final, epochs, steps, warmup, start = data[f"{name}_params"].tolist()
        values = cosine(base, final, int(epochs), int(steps), int(warmup), start)
        np.testing.assert_allclose(values, data[f"{name}_values"], rtol=0, atol=1e-15)
    for case in (0, 1):
        warm, final, warmup, epochs = data[f"teacher_temp{case}_params"].tolist()
        values = teacher_temperature(warm, final, int(warmup), int(epochs))
        np.testing.assert_allclose(values, data[f"teacher_temp{case}_values"], rtol=0, atol=1e-15)
    for (lr, batch_per_rank, n_ranks), expected in zip(data["lr_scaling_in"], data["lr_scaling_out"], strict=True):
        assert scaled_lr(lr, int(batch_per_rank * n_ranks)) == pytest.approx(expected, rel=1e-14)
