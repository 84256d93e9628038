"""Logistic regression on frozen features: how much of the answer lies in them as a plane."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from ssl_lens.evaluation.answers import Answers, Classes
from ssl_lens.evaluation.metrics import macro_auc
from ssl_lens.evaluation.probes.calibration import sharpness
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted
from ssl_lens.representation.predictor import linear_head

INVERSE_REGULARISATIONS = tuple(10.0**power for power in range(-5, 2))  # C: from the strongest to the weakest
UNCHOSEN = 1.0  # C where there is nothing to choose it by
FOLDS = 5
MAX_ITERATIONS = 2000

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LinearClassifier(Fitted[np.ndarray]):
    """Logits z = W (x - mean) / scale + b of features x.

    Shapes: weight [C, F], bias [C], mean and scale [F].
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def outputs(self, inputs: np.ndarray) -> np.ndarray:
        return ((inputs - self.mean) / self.scale) @ self.weight.T + self.bias

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return softmax(self.outputs(inputs), axis=1)

    def head(self) -> nn.Module:
        return linear_head(self.weight, self.bias, mean=self.mean, scale=self.scale)


class Linear(FeatureProbe):
    """Standardises the features and fits an L2-regularised logistic regression.

    Its regularisation is the one with the highest cross-validated AUC (one-vs-rest), of equal ones the weakest; the
    logits are then sharpened where cross-validation finds them too weak. Without both, easy data with unequal classes
    would be answered with the larger class for every image: there all candidates rank perfectly, and the intercept,
    which is not regularised, outweighs the strongest one's logits. Standardisation and choice see only the images
    given, each fold standardised by its own training part.
    """

    name = "linear"
    kinds = (Classes,)

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> LinearClassifier:
        assert isinstance(answers, Classes)
        return fit_linear(features, answers.labels, seed=seed)


def fit_linear(features: np.ndarray, labels: np.ndarray, *, seed: int) -> LinearClassifier:
    """A linear probe of features [N, F] and labels int [N], which hold all of 0..C-1."""
    log_prior = np.log(np.bincount(labels) / len(labels))
    c, sharpen = UNCHOSEN, 1.0
    if np.bincount(labels).min() > 1:
        held_out = _held_out_logits(features, labels, seed)
        aucs = [macro_auc(labels, softmax(logits, axis=1)) for logits in held_out]
        best = max(i for i, auc in enumerate(aucs) if auc == max(aucs))
        c = INVERSE_REGULARISATIONS[best]
        sharpen = max(1.0, sharpness(held_out[best] - log_prior, labels, log_prior))
    else:
        logger.info("linear probe: with one label of a class nothing can be cross-validated; C=%g", c)
    scale = StandardScaler().fit(features)
    regression = _regression(c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(scale.transform(features), labels)
    if regression.n_iter_.max() >= MAX_ITERATIONS:
        logger.warning("linear probe: C=%g had not converged after %d iterations", c, MAX_ITERATIONS)
    weight, bias = _all_classes(regression)
    return LinearClassifier(sharpen * weight, sharpen * (bias - log_prior) + log_prior, scale.mean_, scale.scale_)


def _held_out_logits(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Logits of every image by models that have not seen it, for every regularisation, [R, N, C]; normalised."""
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=seed)
    logits = np.empty((len(INVERSE_REGULARISATIONS), len(labels), labels.max() + 1))
    for fit, judged in folds.split(features, labels):
        scale = StandardScaler().fit(features[fit])
        seen, unseen = scale.transform(features[fit]), scale.transform(features[judged])
        regression = _regression(UNCHOSEN, warm_start=True)  # each begins with the stronger one's weights
        for i, c in enumerate(INVERSE_REGULARISATIONS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early, it is judged by its score
                regression.set_params(C=c).fit(seen, labels[fit])
            weight, bias = _all_classes(regression)
            logits[i, judged] = unseen @ weight.T + bias
    return log_softmax(logits, axis=2)


def _regression(c: float, *, warm_start: bool = False) -> LogisticRegression:
    return LogisticRegression(C=c, max_iter=MAX_ITERATIONS, warm_start=warm_start)


def _all_classes(regression: LogisticRegression) -> tuple[np.ndarray, np.ndarray]:
    """Weight [C, F] and bias [C] of all classes; scikit-learn has one logit z for two: z/2 and -z/2 say the same."""
    weight, bias = regression.coef_, regression.intercept_
    return (
        (weight, bias)
        if len(weight) > 1
        else (np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2)
    )
