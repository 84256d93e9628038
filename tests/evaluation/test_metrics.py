import numpy as np
import pytest

from ssl_lens.evaluation.metrics import accuracy, macro_auc, macro_roc


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
