"""Collapse is measured in numbers known in closed form, and told once."""

import math

import pytest
import torch

from ssl_lens.engine.monitors import Advisor, FeatureWindow, feature_statistics, teacher_statistics


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


def test_rankme_counts_equal_directions() -> None:
    orthogonal = torch.linalg.qr(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)))[0]
    padded = torch.cat([orthogonal, torch.zeros(64, 11)], dim=1)
    assert feature_statistics(padded)["rankme"] == pytest.approx(5, rel=1e-3)


def test_feature_std_is_one_on_the_whole_sphere_and_zero_when_collapsed() -> None:
    features = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert feature_statistics(features)["feature_std"] == pytest.approx(1, abs=0.02)
    assert feature_statistics(torch.ones(10, 16))["feature_std"] == pytest.approx(0, abs=1e-7)


def test_the_window_keeps_the_newest() -> None:
    window = FeatureWindow(capacity=6)
    for i in range(5):
        window.add(torch.full((2, 2, 3), float(i)))
    assert window.all()[:, 0].tolist() == [3, 3, 4, 4, 4, 4]


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
def test_advice_is_given_once(change: dict[str, float], words: str) -> None:
    advisor = Advisor(1024, sinkhorn=False)
    assert advisor.advise(HEALTHY) == []
    (advice,) = advisor.advise(HEALTHY | change)
    assert words in advice
    assert "loss.centering=sinkhorn" in advice
    assert advisor.advise(HEALTHY | change) == []


def test_advice_never_names_what_is_set_already() -> None:
    (advice,) = Advisor(1024, sinkhorn=True).advise(HEALTHY | {"mean_entropy": 0.1})
    assert "loss.centering" not in advice
    assert "lower model.out_dim" in advice
