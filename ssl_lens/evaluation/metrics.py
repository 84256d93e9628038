"""What is reported: accuracy and macro one-vs-rest AUC of class probabilities, three errors of measured numbers."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Fraction of images whose most probable class is the true one.

    Shapes: labels int [N], probabilities [N, C].
    """
    return float((probabilities.argmax(axis=1) == labels).mean())


def macro_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve of each class against the rest, averaged over classes with equal weight.

    Shapes: labels int [N] holding every class, probabilities [N, C] with rows that sum to 1. For two classes both areas
    are the same number, the usual binary AUC.
    """
    classes = range(probabilities.shape[1])
    return float(np.mean([roc_auc_score(labels == label, probabilities[:, label]) for label in classes]))


def macro_roc(labels: np.ndarray, probabilities: np.ndarray, false_positive_rates: np.ndarray) -> np.ndarray:
    """True-positive rates at the given false-positive rates, one-vs-rest, averaged over classes.

    Shapes: labels int [N], probabilities [N, C], false_positive_rates ascending [P] in 0..1; returns [P].
    """
    curves = []
    for label in range(probabilities.shape[1]):
        false_positives, true_positives, _ = roc_curve(labels == label, probabilities[:, label])
        curves.append(np.interp(false_positive_rates, false_positives, true_positives))
    return np.mean(curves, axis=0)


def mean_absolute_error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Mean |predicted - truth| over images [M], in their units."""
    return float(np.abs(predicted - truth).mean())


def root_mean_square_error(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Square root of the mean squared difference over images [M], in their units."""
    return float(np.sqrt(np.square(predicted - truth).mean()))


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> float:
    """1 - sum (predicted - truth)^2 / sum (truth - mean truth)^2: 1 is perfect, 0 no better than the mean; images [M].

    NaN where the truth is constant.
    """
    scatter = np.square(truth - truth.mean()).sum()
    return float(1 - np.square(predicted - truth).sum() / scatter) if scatter else float("nan")
