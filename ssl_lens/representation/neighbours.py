"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

from typing import NamedTuple

import faiss
import numpy as np

CHUNK = 256  # test images rescored at once: bounds memory at CHUNK x candidates x D numbers


class Neighbours(NamedTuple):
    """The k training images nearest to each test image, nearest first.

    Shapes: indices int64 [M, k] into the training images; cosine [M, k] to them.
    """

    indices: np.ndarray
    cosine: np.ndarray


def nearest(train_features: np.ndarray, test_features: np.ndarray, k: int) -> Neighbours:
    """The k training images nearest in cosine to each test image; all of them where there are fewer.

    Shapes: train_features [N, D], test_features [M, D]; cosines in the features' dtype.
    """
    train, test = _unit_rows(train_features), _unit_rows(test_features)
    k = min(k, len(train))
    candidates = _candidates(train, test, min(2 * k, len(train)))  # twice k: float32 may swap neighbours around rank k
    indices, cosines = np.empty((len(test), k), np.int64), np.empty((len(test), k), train.dtype)
    for start in range(0, len(test), CHUNK):
        part = slice(start, start + CHUNK)
        cosine = np.einsum("md,mjd->mj", test[part], train[candidates[part]])
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        indices[part] = np.take_along_axis(candidates[part], order, axis=1)
        cosines[part] = np.take_along_axis(cosine, order, axis=1)
    return Neighbours(indices, cosines)


def knn_scores(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Votes of the k training images nearest in cosine, each weighted by exp(cosine / temperature).

        scores[m, c] = sum over the k nearest j of test image m:  exp(cos(m, j) / temperature) * [label[j] = c]

    Shapes: train_features [N, D], train_labels int [N] in 0..num_classes-1, test_features [M, D]; returns [M, C] in the
    features' dtype. Fewer than k training images all vote.
    Source: kNN evaluation of DINO (Caron et al. 2021). Differs: faiss finds candidates in float32 and these are ranked
    and weighted again in the features' own dtype; any number of classes and of test images.
    """
    neighbours = nearest(train_features, test_features, k)
    weights = np.exp(neighbours.cosine / temperature)
    votes = np.eye(num_classes, dtype=weights.dtype)[train_labels]
    parts = [slice(start, start + CHUNK) for start in range(0, len(weights), CHUNK)]
    return np.concatenate([np.einsum("mk,mkc->mc", weights[p], votes[neighbours.indices[p]]) for p in parts])


def knn_probabilities(scores: np.ndarray) -> np.ndarray:
    """Each row of scores [M, C] divided by its sum: class probabilities."""
    return scores / scores.sum(axis=1, keepdims=True)


def _unit_rows(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)


def _candidates(train: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
    index = faiss.IndexFlatIP(train.shape[1])
    index.add(np.ascontiguousarray(train, dtype=np.float32))
    return index.search(np.ascontiguousarray(test, dtype=np.float32), count)[1]
