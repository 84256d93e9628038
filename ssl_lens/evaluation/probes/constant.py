"""What needs no image: the mean of the numbers, the frequencies of the classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_lens.evaluation.answers import Answers, Classes, Normal, Numbers
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted


@dataclass(frozen=True)
class _Same(Fitted[np.ndarray]):
    answer: np.ndarray  # [K]

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.tile(self.answer, (len(inputs), 1))


class Constant(FeatureProbe):
    """The predictor that others have to beat: the same answer for every image."""

    name = "constant"
    kinds = (Classes, Numbers)
    uses_features = False

    def fit(self, features: np.ndarray, answers: Answers, *, seed: int) -> Fitted[np.ndarray]:
        assert not isinstance(answers, Normal)
        if isinstance(answers, Numbers):
            return _Same(answers.values.mean(axis=0))
        counts = np.bincount(answers.labels, minlength=len(answers.names))
        return _Same(counts / counts.sum())
