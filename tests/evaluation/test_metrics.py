import numpy as np
import pytest

from ssl_lens.evaluation.metrics import (
    accuracy,
    classification_scores,
    detection_scores,
    macro_auc,
    macro_roc,
    regression_scores,
)


def _ranked_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUC by its definition: the fraction of (positive, negative) pairs in the right order, ties counting half."""
    positive, negative = scores[labels], scores[~labels]
    return np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_macro_auc_is_the_mean_fraction_of_ordered_pairs(num_classes):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % num_classes
    probabilities = rng.dirichlet(np.ones(num_classes), 60).round(2)
    expected = np.mean([_ranked_pairs(labels == c, probabilities[:, c]) for c in range(num_classes)])
    assert macro_auc(labels, probabilities) == pytest.approx(expected, abs=1e-12)


def test_accuracy_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    assert accuracy(np.array([0, 1, 1, 1]), probabilities) == 0.75


def test_perfect_and_inverted_rankings():
    labels = np.array([0, 0, 1, 1])
    right = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert macro_auc(labels, right) == 1.0
    assert macro_auc(labels, right[:, ::-1]) == 0.0


def test_area_under_macro_roc_is_macro_auc():
    rng = np.random.default_rng(1)
    labels, probabilities = np.arange(90) % 3, rng.dirichlet(np.ones(3), 90)
    rates = np.linspace(0, 1, 20001)
    area = np.trapezoid(macro_roc(labels, probabilities, rates), rates)
    assert area == pytest.approx(macro_auc(labels, probabilities), abs=2e-4)


def test_detection_by_hand():
    """Scores 5, 4, 2 of the positives among 4.5, 1 and 0 of the others."""
    positive = np.array([True, True, True, False, False, False])
    scores = detection_scores(positive, np.array([5.0, 4.0, 2.0, 4.5, 1.0, 0.0]))
    assert scores["auc"] == pytest.approx(7 / 9)
    assert scores["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert scores["tpr_at_fpr_0"] == scores["tpr_at_fpr_1e-2"] == pytest.approx(1 / 3)


def test_rates_at_few_false_positives_allow_just_so_many():
    """1000 others: at a rate of 1e-2 ten may pass, at 1e-3 one, at 0 none."""
    others = np.linspace(0, 1, 1000)
    positives = np.array([2.0, others[-1] - 1e-9, others[-2] - 1e-9, others[-10] - 1e-9, others[-11] - 1e-9])
    scores = detection_scores(np.repeat([True, False], [5, 1000]), np.concatenate([positives, others]))
    assert [scores[f"tpr_at_fpr_{rate}"] for rate in ("0", "1e-3", "1e-2")] == pytest.approx([0.2, 0.4, 0.8])


def test_classes_are_scored_together_and_each():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])
    labels = np.array([0, 0, 1, 2, 0])
    scores = classification_scores(labels, probabilities, ("a", "b", "c"))
    assert scores["accuracy"] == pytest.approx(0.8)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert [scores[f"recall[{name}]"] for name in "abc"] == pytest.approx([2 / 3, 1, 1])
    assert scores["auc"] == pytest.approx(macro_auc(labels, probabilities))
    assert scores["auc[a]"] == pytest.approx(_ranked_pairs(labels == 0, probabilities[:, 0]))
    assert scores["average_precision"] == pytest.approx(np.mean([scores[f"average_precision[{c}]"] for c in "abc"]))


def test_errors_by_hand():
    truth, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0])
    scores = regression_scores(truth, predicted)
    assert scores == pytest.approx({"mae": 0.75, "rmse": np.sqrt(5 / 4), "r2": 1 - 5 / 14})  # mean 3: 4 + 1 + 0 + 9
    assert regression_scores(truth, np.full(4, 3.0))["r2"] == 0
    assert np.isnan(regression_scores(np.ones(3), predicted[:3])["r2"])
