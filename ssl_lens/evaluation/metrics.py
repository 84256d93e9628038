"""What is reported of predictions; scikit-learn's where it has them."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    roc_curve,
    root_mean_squared_error,
)

FALSE_POSITIVE_RATES = {"1e-2": 1e-2, "1e-3": 1e-3, "0": 0.0}


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
    classes = range(probabilities.shape[1])
    curves = [roc(labels == label, probabilities[:, label], false_positive_rates) for label in classes]
    return np.mean(curves, axis=0)


def roc(positive: np.ndarray, scores: np.ndarray, false_positive_rates: np.ndarray) -> np.ndarray:
    """True-positive rates at the given false-positive rates; positive bool [N], scores [N]."""
    false_positives, true_positives, _ = roc_curve(positive, scores)
    return np.interp(false_positive_rates, false_positives, true_positives)


def detection_scores(positive: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """How well scores [N] tell the positive images (bool [N]) from the rest.

    `tpr_at_fpr_X` is the largest fraction of positives above a threshold that at most a fraction X of the others
    passes.
    """
    false_positives, true_positives, _ = roc_curve(positive, scores, drop_intermediate=False)
    found = {
        f"tpr_at_fpr_{name}": float(true_positives[false_positives <= rate].max())
        for name, rate in FALSE_POSITIVE_RATES.items()
    }
    auc, precision = roc_auc_score(positive, scores), average_precision_score(positive, scores)
    return {"auc": float(auc), "average_precision": float(precision), **found}


def classification_scores(labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, balanced accuracy; AUC, average precision and rates of each class against the rest, and their means.

    Shapes: labels int [N] holding every class, probabilities [N, C].
    """
    said = probabilities.argmax(axis=1)
    scores = {
        "accuracy": accuracy(labels, probabilities),
        "balanced_accuracy": float(balanced_accuracy_score(labels, said)),
    }
    each = [detection_scores(labels == i, probabilities[:, i]) for i in range(len(classes))]
    recalls = recall_score(labels, said, labels=range(len(classes)), average=None)
    for one, recall in zip(each, recalls, strict=True):
        one["recall"] = float(recall)
    for metric in each[0]:
        if metric != "recall":  # whose mean is the balanced accuracy
            scores[metric] = float(np.mean([one[metric] for one in each]))
    for metric in each[0]:
        scores |= {f"{metric}[{name}]": one[metric] for name, one in zip(classes, each, strict=True)}
    return scores


def regression_scores(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Mean absolute error and root of the mean squared one, in the numbers' units, and R2; images [N].

    R2 = 1 - sum (predicted - truth)^2 / sum (truth - mean truth)^2: 1 is perfect, 0 no better than the mean of these
    very images; NaN where the truth is constant.
    """
    scatter = np.ptp(truth) > 0
    return {
        "mae": float(mean_absolute_error(truth, predicted)),
        "rmse": float(root_mean_squared_error(truth, predicted)),
        "r2": float(r2_score(truth, predicted)) if scatter else float("nan"),
    }
