"""Which class an image belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_lens.evaluation import plots
from ssl_lens.evaluation.answers import Classes
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.metrics import classification_scores
from ssl_lens.evaluation.table import Key, Prediction, Row
from ssl_lens.evaluation.tasks.task import Task, Truth


class Classification(Task):
    """Judged by accuracy, AUC and more, of all classes and of each against the rest."""

    name = "classification"
    probes = ("knn", "linear")
    metrics = ("accuracy", "balanced_accuracy", "auc", "average_precision", "tpr_at_fpr_1e-2", "parameters")

    def divide(self, divisions: Divisions) -> Division:
        return divisions.classes

    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        assert isinstance(truth, Classes)
        return classification_scores(truth.labels, said[0], truth.names)

    def predictions(self, key: Key, names: tuple[str, ...], truth: Truth, said: np.ndarray) -> list[Prediction]:
        assert isinstance(truth, Classes)
        return [Prediction(key, "class", names, truth.labels, said[0], truth.names)]

    def figures(self, rows: Sequence[Row], predictions: Sequence[Prediction], folder: Path) -> list[Path]:
        paths = [folder / "roc.png", folder / "confusion.png"]
        plots.draw_roc(predictions, paths[0])
        plots.draw_confusion(predictions, paths[1])
        if len({row.labels for row in rows}) > 1:
            paths.append(folder / "budgets.png")
            plots.draw_budgets(rows, ("accuracy", "auc"), "labels per class", paths[-1])
        return paths
