"""Nearest neighbours in feature space: their class, their numbers, or how far they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_lens.evaluation.answers import Answers, Classes, Normal, Numbers
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted, Map
from ssl_lens.representation.neighbours import knn_probabilities, knn_scores

TEMPERATURE = 0.07  # of the weights of neighbours, as in `knn_scores`


@dataclass(frozen=True)
class _Neighbours(Fitted[np.ndarray]):
    features: np.ndarray
    answers: Classes | Numbers
    k: int

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        if isinstance(self.answers, Classes):
            scores = knn_scores(
                self.features, self.answers.labels, inputs, num_classes=len(self.answers.names), k=self.k
            )
            return knn_probabilities(scores)
        k = min(self.k, len(self.features))
        search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(self.features)
        distance, index = search.kneighbors(inputs)
        weights = np.exp((distance.min(axis=1, keepdims=True) - distance) / TEMPERATURE)
        return np.einsum("mk,mkt->mt", weights / weights.sum(axis=1, keepdims=True), self.answers.values[index])


class _Distance(Fitted[np.ndarray]):
    def __init__(self, features: np.ndarray, k: int) -> None:
        self.scale = StandardScaler().fit(features)
        self.search = NearestNeighbors(n_neighbors=min(k, len(features))).fit(self.scale.transform(features))

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.search.kneighbors(self.scale.transform(inputs))[0].mean(axis=1, keepdims=True)


class KNN(FeatureProbe):
    """Votes of the `k` training images nearest in cosine, weighted as DINO's evaluation does.

    Numbers are the neighbours' mean with the same weights. How unusual an image is, is the mean distance to the `k`
    nearest in standardised features; images that are searched among themselves each count as their own neighbour.

    Args:
        whiten: vote on so many leading principal components of the features, each of unit variance over all training
            images: neighbours then weigh all directions alike, rather than the few (brightness, radius) that vary most.
    """

    kinds = (Classes, Numbers, Normal)

    def __init__(self, k: int = 20, *, whiten: int | None = None) -> None:
        self.k, self.whiten = k, whiten
        self.name = "knn" if whiten is None else "knn_whitened"

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        return _Distance(features, self.k) if isinstance(answers, Normal) else _Neighbours(features, answers, self.k)

    def map(self, pool: np.ndarray) -> Map:
        if self.whiten is None:
            return super().map(pool)
        components = min(self.whiten, *pool.shape)
        reduce = make_pipeline(StandardScaler(), PCA(components, whiten=True, random_state=0)).fit(pool)
        return lambda features: reduce.transform(features).astype(np.float32)
