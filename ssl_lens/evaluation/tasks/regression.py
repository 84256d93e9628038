"""How large the numbers of an image are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_lens.evaluation import plots
from ssl_lens.evaluation.answers import Numbers
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.metrics import regression_scores
from ssl_lens.evaluation.table import Key, Prediction, Row
from ssl_lens.evaluation.tasks.task import Task, Truth


class Regression(Task):
    """Judged by the errors of each number, next to those of the constant predictor."""

    name = "regression"
    probes = ("knn", "ridge")
    always = ("constant",)
    metrics = ("mae", "rmse", "r2", "parameters")

    def divide(self, divisions: Divisions) -> Division:
        return divisions.numbers

    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        assert isinstance(truth, Numbers)
        return {
            f"{metric}[{name}]": value
            for i, name in enumerate(truth.names)
            for metric, value in regression_scores(truth.values[:, i], said[0, :, i]).items()
        }

    def predictions(self, key: Key, names: tuple[str, ...], truth: Truth, said: np.ndarray) -> list[Prediction]:
        assert isinstance(truth, Numbers)
        return [
            Prediction(key, name, names, truth.values[:, i], said[0, :, i : i + 1])
            for i, name in enumerate(truth.names)
        ]

    def figures(self, rows: Sequence[Row], predictions: Sequence[Prediction], folder: Path) -> list[Path]:
        paths = [folder / "predicted.png"]
        plots.draw_regression(predictions, paths[0])
        if len({row.labels for row in rows}) > 1:
            metrics = tuple(dict.fromkeys(f"rmse[{prediction.output}]" for prediction in predictions))
            paths.append(folder / "regression_budgets.png")
            plots.draw_budgets(rows, metrics, "labels", paths[-1])
        return paths
