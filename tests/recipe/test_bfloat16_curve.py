"""A run in bfloat16 next to the same run in float32."""

import json
from collections.abc import Callable

import numpy as np

from ssl_lens.recipe.compose import Pretraining

ROUNDING = 2**-9  # of one number in bfloat16
STUDENT_TEMP, TEACHER_TEMP = 0.1, 0.04


def test_the_curve_is_that_of_float32_but_for_rounding(run: Callable[..., Pretraining]) -> None:
    """Logits are cosines, of prototypes of length 1, each rounded once by 2^-9 of it or less. That moves a target by a
    factor of at most exp(2 * 2^-9 / teacher_temp), the student's log-probabilities by 2 * 2^-9 / student_temp: a loss L
    by 2^-8 * (L / teacher_temp + 1 / student_temp). Along six steps of training the curves stay within it."""
    curves = []
    for precision in ("no", "bf16"):
        overrides = ("method.centering=sinkhorn", "method.norm_last_layer=true", f"optim.precision={precision}")
        lines = run(precision, *overrides).folder.metrics.read_text().splitlines()
        curves.append([[json.loads(line)[name] for name in ("view_loss", "region_loss")] for line in lines])
    wide, half = map(np.array, curves)
    assert len(wide) == 6
    bound = 2 * ROUNDING * (wide / TEACHER_TEMP + 1 / STUDENT_TEMP)
    assert (np.ptp(wide, axis=0) > bound.max(axis=0)).all()  # the curve moves by more than that
    assert (abs(half - wide) < bound).all()
    assert (half != wide).any()
