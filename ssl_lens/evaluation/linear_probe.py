"""Logistic regression on frozen features: how much of the answer lies in them as a plane."""

from __future__ import annotations

import logging
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ssl_lens.errors import InputError

INVERSE_REGULARISATIONS = tuple(10.0**power for power in range(-5, 2))
FOLDS = 5
MAX_ITERATIONS = 2000

log = logging.getLogger(__name__)


def fit_linear_probe(features: np.ndarray, labels: np.ndarray, *, seed: int) -> Pipeline:
    """Standardises the features and fits an L2-regularised logistic regression.

    The regularisation is the one with the highest cross-validated AUC (one-vs-rest); standardisation and choice see
    only the features given here, each fold standardised by its own training part.

    Shapes: features [N, F], labels int [N]. Returns a fitted scikit-learn pipeline with `predict_proba`.
    Raises: InputError if a class has fewer than two images.
    """
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    if fewest < 2:
        raise InputError(
            "the linear probe chooses its regularisation by cross-validation and needs 2 labels per class, got 1; "
            "raise --labels-per-class"
        )
    probe = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression(max_iter=MAX_ITERATIONS))])
    search = GridSearchCV(
        probe,
        {"classify__C": INVERSE_REGULARISATIONS},
        # Few labels: accuracy ties, and log-loss flees overconfidence into no fit at all.
        scoring="roc_auc_ovr",
        cv=StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a candidate stopped early is judged by its score
        search.fit(features, labels)
    chosen = search.best_estimator_["classify"]
    if chosen.n_iter_.max() >= MAX_ITERATIONS:
        log.warning("linear probe: C=%g had not converged after %d iterations", chosen.C, MAX_ITERATIONS)
    return search.best_estimator_


def linear_probabilities(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, *, seed: int
) -> np.ndarray:
    """Class probabilities [M, C] of test_features [M, F] by a probe fitted to train_features [N, F] alone."""
    return fit_linear_probe(train_features, train_labels, seed=seed).predict_proba(test_features)
