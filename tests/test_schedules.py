import math

import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.schedules import cosine, scaled_lr, teacher_temperature


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
        cosine(1.0, 0.0, epochs=4, steps_per_epoch=5, warmup_epochs=10)


def test_teacher_temperature_by_small_numbers():
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 3, 5), [0.04, 0.055, 0.07, 0.07, 0.07])
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 0, 2), [0.07, 0.07])
    np.testing.assert_allclose(teacher_temperature(0.04, 0.07, 4, 2), [0.04, 0.05])


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
