"""Collapse is measured in numbers known in closed form, and named."""

import math

import pytest
import torch

from ssl_lens.methods.collapse import DINOAdvisor, teacher_statistics


@pytest.mark.parametrize(
    ("probabilities", "entropy", "mean_entropy", "information"),
    [
        (torch.full((6, 8), 1 / 8), math.log(8), math.log(8), 0),
        (torch.eye(8), 0, math.log(8), 1),
        (torch.eye(8)[torch.zeros(5, dtype=torch.long)], 0, 0, 0),
        (torch.eye(8)[:2].repeat(3, 1), 0, math.log(2), math.log(2) / math.log(8)),
    ],
)
def test_teacher_statistics(
    probabilities: torch.Tensor, entropy: float, mean_entropy: float, information: float
) -> None:
    assert teacher_statistics(probabilities) == pytest.approx(
        {"teacher_entropy": entropy, "mean_entropy": mean_entropy, "information": information}, abs=1e-7
    )


HEALTHY = {"view_loss": 5.0, "teacher_entropy": 2.0, "mean_entropy": 6.0, "feature_std": 0.8, "rankme": 40.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"view_loss": math.log(1024), "teacher_entropy": math.log(1024)}, "sits at ln K = 6.931"),
        ({"mean_entropy": 0.1}, "same prototype"),
        ({"feature_std": 0.001}, "features hardly differ"),
        ({"rankme": 1.1}, "features hardly differ"),
    ],
)
def test_advice_names_what_is_wrong(change: dict[str, float], words: str) -> None:
    advisor = DINOAdvisor(1024, sinkhorn=False)
    assert advisor.advise(HEALTHY) == []
    (advice,) = advisor.advise(HEALTHY | change)
    assert words in advice
    assert "centering=sinkhorn" in advice


def test_advice_never_names_what_is_set_already() -> None:
    (advice,) = DINOAdvisor(1024, sinkhorn=True).advise(HEALTHY | {"mean_entropy": 0.1})
    assert "centering" not in advice
    assert "lower out_dim" in advice
