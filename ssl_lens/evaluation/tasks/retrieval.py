"""Whether the images nearest in feature space are of the same class."""

from __future__ import annotations

import numpy as np

from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Classes
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.probes.features import Features
from ssl_lens.evaluation.probes.probe import Probe
from ssl_lens.evaluation.tasks.task import Task, Truth

RANKS = (1, 5, 10)  # k of precision@k
CHUNK = 512  # images that ask at once


class Retrieval(Task):
    """Every image that judges asks for the others, in the order of their cosine; those of its class are right.

    `precision_at_k` is the fraction of right ones among the first k, `map` the mean over images of the average
    precision: the mean precision at the ranks of the right ones.
    """

    name = "retrieval"
    probes = ("features",)
    always = ("features",)
    metrics = (*(f"precision_at_{k}" for k in RANKS), "map")

    def divide(self, divisions: Divisions) -> Division:
        return divisions.classes

    def takes(self, probe: Probe, division: Division) -> bool:
        return isinstance(probe, Features)

    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        assert isinstance(truth, Classes)
        return retrieval_scores(truth.labels, said[0])


def retrieval_scores(labels: np.ndarray, features: np.ndarray) -> dict[str, float]:
    """Precisions and mean average precision; labels int [M], features [M, F]. Images alone in their class do not ask.

    Raises: InputError if no class has two images.
    """
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(norms, 1e-12)
    asking = np.flatnonzero(np.bincount(labels)[labels] > 1)
    if not len(asking):
        raise InputError("retrieval needs two images of a class to judge by; there are none, add some")
    precisions, averages = [], []
    ranks = np.arange(1, len(labels))
    for start in range(0, len(asking), CHUNK):
        queries = asking[start : start + CHUNK]
        cosine = unit[queries] @ unit.T
        cosine[np.arange(len(queries)), queries] = -np.inf  # itself comes last and is cut off
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :-1]
        right = labels[order] == labels[queries][:, None]
        at_rank = right.cumsum(axis=1) / ranks
        precisions.append(at_rank[:, [min(k, len(ranks)) - 1 for k in RANKS]])
        averages.append((at_rank * right).sum(axis=1) / right.sum(axis=1))
    means = np.concatenate(precisions).mean(axis=0)
    scores = {f"precision_at_{k}": float(mean) for k, mean in zip(RANKS, means, strict=True)}
    return scores | {"map": float(np.concatenate(averages).mean())}
