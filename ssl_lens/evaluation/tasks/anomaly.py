"""Which images are unlike the usual ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_lens.evaluation import plots
from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.metrics import detection_scores
from ssl_lens.evaluation.table import Key, Prediction, Row
from ssl_lens.evaluation.tasks.task import Task, Truth


class Anomaly(Task):
    """Judged by how well the scores single out the classes declared anomalous.

    Without such classes nobody knows what is right: what is kept are the scores of all images, and by how many median
    absolute deviations the most unusual one exceeds their median.
    """

    name = "anomaly"
    probes = ("knn", "mahalanobis", "isolation_forest")
    metrics = ("auc", "average_precision", "tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3", "tpr_at_fpr_0", "highest")

    def divide(self, divisions: Divisions) -> Division:
        return divisions.normal

    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        scores = said[0, :, 0]
        if truth is None:
            median = np.median(scores)
            deviation = np.median(np.abs(scores - median))
            return {"highest": float((scores.max() - median) / deviation) if deviation else float("nan")}
        assert isinstance(truth, Classes)
        return detection_scores(truth.labels == 1, scores)

    def predictions(self, key: Key, names: tuple[str, ...], truth: Truth, said: np.ndarray) -> list[Prediction]:
        assert not isinstance(truth, Numbers)
        known = np.full(len(names), np.nan) if truth is None else truth.labels.astype(np.float64)
        return [Prediction(key, "anomaly", names, known, said[0])]

    def figures(self, rows: Sequence[Row], predictions: Sequence[Prediction], folder: Path) -> list[Path]:
        if np.isnan(predictions[0].truth).any():
            path = folder / "anomaly_scores.png"
            plots.draw_scores(predictions, path)
        else:
            path = folder / "anomaly_roc.png"
            plots.draw_anomaly_roc(predictions, path)
        return [path]
