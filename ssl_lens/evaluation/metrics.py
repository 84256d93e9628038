"""What is reported of a classifier: accuracy and macro one-vs-rest AUC, both from class probabilities."""

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
