"""Collapse is measured in numbers known in closed form, and named."""

import math

import pytest
import torch

from ssl_lens.methods import collapse
from ssl_lens.methods.collapse import DINOAdvisor, teacher_statistics
from ssl_lens.methods.dino import DINOOptions


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


def test_many_rows_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.rand(11, 8, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    at_once = teacher_statistics(rows)
    monkeypatch.setattr(collapse, "ROWS_AT_ONCE", 4)
    assert teacher_statistics(rows) == pytest.approx(at_once, rel=1e-12)


UNIFORM = math.log(1024)
HEALTHY = {
    **{"view_loss": 5.0, "view_mean_entropy": 6.0, "view_information": 0.4},
    **{"region_loss": 4.0, "region_mean_entropy": 5.0, "region_information": 0.5},
    **{"feature_std": 0.8, "rankme": 40.0},
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ("loss", UNIFORM + 0.06, "mean_entropy", UNIFORM, "information", 0.01),
            "s are uniform, of entropy ln K = 6.931",
        ),
        (("loss", 9.0, "mean_entropy", UNIFORM, "information", 4e-4), "s are uniform"),
        (("loss", 3.05, "mean_entropy", 3.0, "information", 0.01), "s the same target, of several prototypes"),
        (("loss", 40.0, "mean_entropy", 3.0, "information", 1e-9), "s the same target, of several prototypes"),
        (("loss", 0.6, "mean_entropy", 0.65, "information", 0.1), "s the same one or two prototypes"),
    ],
)
@pytest.mark.parametrize("kind", ["view", "region"])
def test_advice_names_what_is_wrong_with_targets(kind: str, change: tuple, words: str) -> None:
    advisor = DINOAdvisor(DINOOptions(out_dim=1024))
    assert advisor.advise(HEALTHY) == []
    changed = {f"{kind}_{name}": value for name, value in zip(change[::2], change[1::2], strict=True)}
    (advice,) = advisor.advise(HEALTHY | changed)
    assert kind + words in advice
    assert "set head_batch_norm=true, " in advice
    assert "set centering=sinkhorn" in advice


@pytest.mark.parametrize("change", [{"feature_std": 0.049}, {"rankme": 1.9}])
def test_advice_names_features_that_are_alike(change: dict[str, float]) -> None:
    (advice,) = DINOAdvisor(DINOOptions(out_dim=1024)).advise(HEALTHY | change)
    assert "features hardly differ" in advice
    assert "lower the learning rate or view_weight, or set centering=sinkhorn" in advice


@pytest.mark.parametrize(
    "untrained",
    [
        {"view_loss": 8.496, "view_mean_entropy": 8.318, "view_information": 0.006, "feature_std": 0.2, "rankme": 5.4},
        {
            "view_loss": 7.585,
            "view_mean_entropy": 7.064,
            "view_information": 0.0015,
            "feature_std": 0.095,
            "rankme": 5.2,
        },
    ],
    ids=["dino_swin", "regionvit_tiny"],
)
def test_an_untrained_network_has_not_collapsed(untrained: dict[str, float]) -> None:
    """Measured at step 0: lenses look alike to it, but its student does not give them all one target yet."""
    assert DINOAdvisor(DINOOptions(out_dim=4096)).advise(untrained) == []


def test_half_of_two_prototypes_is_no_collapse() -> None:
    measured = {"view_loss": 0.5, "view_mean_entropy": 0.6, "view_information": 0.5, "feature_std": 0.8, "rankme": 9.0}
    assert DINOAdvisor(DINOOptions(out_dim=2)).advise(measured) == []


def test_advice_names_only_what_can_be_changed() -> None:
    one_prototype = HEALTHY | {"view_mean_entropy": 0.1}
    (advice,) = DINOAdvisor(DINOOptions(out_dim=1024, centering="sinkhorn", head_batch_norm=True)).advise(one_prototype)
    assert "centering" not in advice
    assert "head_batch_norm" not in advice
    assert "lower out_dim" in advice
    (advice,) = DINOAdvisor(DINOOptions(out_dim=1024, center_momentum=1)).advise(one_prototype)
    assert "set center_momentum=0.9 or centering=sinkhorn" in advice
    (advice,) = DINOAdvisor(DINOOptions(out_dim=1024, region_weight=0)).advise(HEALTHY | {"rankme": 1.0})
    assert "view_weight" not in advice
