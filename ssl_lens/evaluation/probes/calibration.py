"""Scores become probabilities: one number, by which all of them are multiplied."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

RANGE = (-6.0, 8.0)  # natural logarithms of the factor, in units of the scores' scatter


def sharpness(scores: np.ndarray, labels: np.ndarray, log_prior: np.ndarray) -> float:
    """The positive factor a with which softmax(a * scores + log_prior) describes the labels best.

    It changes no ranking, and where classes are equally frequent no decision. The labels are softened as by Platt
    (1999), so that it is finite for scores that separate the classes.

    Shapes: scores [N, C], of images that the model of the scores has not seen; labels int [N]; log_prior [C], the
        logarithms of the classes' frequencies.
    """
    counts = np.bincount(labels, minlength=scores.shape[1])
    wrong = 1 / (counts[labels] + 2)
    targets = np.repeat(wrong[:, None] / (scores.shape[1] - 1), scores.shape[1], axis=1)
    targets[np.arange(len(labels)), labels] = 1 - wrong
    scatter = max(float(scores.std()), np.finfo(np.float64).tiny)

    def cross_entropy(log_factor: float) -> float:
        logits = np.exp(log_factor) / scatter * scores + log_prior
        return -float((targets * log_softmax(logits, axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(cross_entropy, bounds=RANGE, method="bounded").x) / scatter)
