"""How far an image lies from the cloud of the usual ones, in units of the cloud's width in that direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_lens.evaluation.answers import Answers, Normal
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted

MOST_COMPONENTS = 128  # of the features: more than images tell apart, few enough to invert


@dataclass(frozen=True)
class _Cloud(Fitted[np.ndarray]):
    reduce: Pipeline
    cloud: LedoitWolf

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.sqrt(self.cloud.mahalanobis(self.reduce.transform(inputs)))[:, None]


class Mahalanobis(FeatureProbe):
    """The Mahalanobis distance on the leading principal components, with the shrunk covariance of Ledoit and Wolf."""

    name = "mahalanobis"
    kinds = (Normal,)

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        components = min(MOST_COMPONENTS, features.shape[0] - 1, features.shape[1])
        reduce = make_pipeline(StandardScaler(), PCA(components, random_state=0))
        return _Cloud(reduce, LedoitWolf().fit(reduce.fit_transform(features.astype(np.float64))))
