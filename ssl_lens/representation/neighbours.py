"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

import faiss
import numpy as np

CHUNK = 256  # test images rescored at once: bounds memory at CHUNK x candidates x D numbers


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
    train, test = _unit_rows(train_features), _unit_rows(test_features)
    k = min(k, len(train))
    candidates = _nearest(train, test, min(2 * k, len(train)))  # twice k: float32 may swap neighbours around rank k
    votes = np.eye(num_classes, dtype=train.dtype)[train_labels]
    scores = np.empty((len(test), num_classes), train.dtype)
    for start in range(0, len(test), CHUNK):
        chosen = candidates[start : start + CHUNK]
        cosine = np.einsum("md,mjd->mj", test[start : start + CHUNK], train[chosen])
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        weights = np.exp(np.take_along_axis(cosine, nearest, axis=1) / temperature)
        neighbours = np.take_along_axis(chosen, nearest, axis=1)
        scores[start : start + CHUNK] = np.einsum("mk,mkc->mc", weights, votes[neighbours])
    return scores


def knn_probabilities(scores: np.ndarray) -> np.ndarray:
    """Each row of scores [M, C] divided by its sum: class probabilities."""
    return scores / scores.sum(axis=1, keepdims=True)


def _unit_rows(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, 1e-12)


def _nearest(train: np.ndarray, test: np.ndarray, count: int) -> np.ndarray:
    index = faiss.IndexFlatIP(train.shape[1])
    index.add(np.ascontiguousarray(train, dtype=np.float32))
    return index.search(np.ascontiguousarray(test, dtype=np.float32), count)[1]
