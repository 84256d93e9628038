"""How few random cuts through feature space set an image apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import IsolationForest

from ssl_lens.evaluation.answers import Answers, Normal
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted

TREES = 300


@dataclass(frozen=True)
class _Forest(Fitted[np.ndarray]):
    forest: IsolationForest

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return -self.forest.score_samples(inputs)[:, None]


class Isolation(FeatureProbe):
    """The anomaly score of an isolation forest (Liu et al. 2008), between 0 and 1."""

    name = "isolation_forest"
    kinds = (Normal,)
    repeats = True

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        return _Forest(IsolationForest(n_estimators=TREES, random_state=seed).fit(features))
