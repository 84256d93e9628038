"""Ridge regression on frozen features, of numbers or of +-1 for classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from torch import nn

from ssl_lens.evaluation.answers import Answers, Classes, Normal, Numbers
from ssl_lens.evaluation.probes.calibration import sharpness
from ssl_lens.evaluation.probes.linear import LinearClassifier
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted
from ssl_lens.representation.predictor import linear_head

REGULARISATIONS = tuple(10.0 ** (power / 2) for power in range(-4, 13))  # alpha, of standardised features


@dataclass(frozen=True)
class LinearRegressor(Fitted[np.ndarray]):
    """Numbers y = W (x - mean) / scale + b of features x.

    Shapes: weight [T, F], bias [T], mean and scale [F].
    """

    weight: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return ((inputs - self.mean) / self.scale) @ self.weight.T + self.bias

    def head(self) -> nn.Module:
        return linear_head(self.weight, self.bias, mean=self.mean, scale=self.scale)


class Ridge(FeatureProbe):
    """Fits a ridge regression, whose regularisation predictions with one image left out choose.

    Each number, of standardised features, has its own regularisation, that of the least squared error. Classes are one
    number each, +1 or -1, with one regularisation: that whose left-out predictions are the most correlated with them,
    for a class needs a direction, not a size. By squared error, ten labels a class would choose the strongest one,
    which says nothing. Whether features are standardised is chosen alike: the scales that a backbone gives them, such
    as those of an alignment, say which of them matter. The left-out predictions also calibrate the probabilities.
    """

    name = "ridge"
    kinds = (Classes, Numbers)

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        assert not isinstance(answers, Normal)
        if isinstance(answers, Classes):
            return _classifier(features.astype(np.float64), answers)
        scale = StandardScaler().fit(features)
        standard = scale.transform(features).astype(np.float64)
        ridge = RidgeCV(REGULARISATIONS, alpha_per_target=True).fit(standard, answers.values)
        return LinearRegressor(np.atleast_2d(ridge.coef_), np.atleast_1d(ridge.intercept_), scale.mean_, scale.scale_)


class _Candidate(NamedTuple):
    """Of features (x - mean) / scale the regularisation that is best.

    Shapes: left_out [N, C], predictions with the image left out, less the mean of the others.
    """

    alignment: float
    alpha: float
    left_out: np.ndarray
    scale: np.ndarray


def _classifier(features: np.ndarray, answers: Classes) -> LinearClassifier:
    """Scores around their means, sharpened, plus the logarithms of the classes' frequencies, are the logits."""
    log_prior = np.log(np.bincount(answers.labels, minlength=len(answers.names)) / len(answers.labels))
    signs = 2.0 * np.eye(len(answers.names))[answers.labels] - 1
    mean, std = features.mean(axis=0), StandardScaler().fit(features).scale_
    common = np.full_like(std, max(np.sqrt(features.var(axis=0).mean()), np.finfo(np.float64).tiny))
    best = max((_best(features - mean, scale, signs) for scale in (std, common)), key=lambda found: found.alignment)
    factor = sharpness(best.left_out, answers.labels, log_prior)
    model = PlainRidge(best.alpha).fit((features - mean) / best.scale, signs)
    # The features have a mean of 0, so that the scores' means are the intercepts.
    return LinearClassifier(factor * model.coef_, log_prior, mean, best.scale)


def _best(centred: np.ndarray, scale: np.ndarray, signs: np.ndarray) -> _Candidate:
    # With a scorer scikit-learn keeps the predictions with one image left out, without one their squared errors.
    ridge = RidgeCV(REGULARISATIONS, scoring="neg_mean_squared_error", store_cv_results=True)
    ridge.fit(centred / scale, signs)
    means = (signs.sum(axis=0) - signs) / (len(signs) - 1)  # of the others: without it the mean would tell the label
    left_out = ridge.cv_results_ - means[:, :, None]  # [N, C, R]
    alignment = np.tensordot(signs - signs.mean(axis=0), left_out, axes=((0, 1), (0, 1)))
    alignment /= np.linalg.norm(left_out, axis=(0, 1)) + np.finfo(np.float64).tiny
    best = int(np.argmax(alignment))  # of equals the weakest
    return _Candidate(float(alignment[best]), REGULARISATIONS[best], left_out[:, :, best], scale)
