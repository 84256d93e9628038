"""Results of regression become a table, a CSV, a JSON file and a picture of predicted against true values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ssl_lens.evaluation.metrics import mean_absolute_error, r_squared, root_mean_square_error
from ssl_lens.evaluation.pictures import panel_grid
from ssl_lens.evaluation.protocol import count_name
from ssl_lens.evaluation.regression import RegressionResult
from ssl_lens.evaluation.report import aligned, spread, write_rows

METRICS = {"mae": mean_absolute_error, "rmse": root_mean_square_error, "r2": r_squared}


class Score(NamedTuple):
    """How well one trained network measures one target, in the target's units; see `Measurement`."""

    method: str
    labels: str
    seed: int
    target: str
    mae: float
    rmse: float
    r2: float
    rotation_std: float
    quarter_turn_std: float
    parameters: int


def scores(results: Sequence[RegressionResult], names: Sequence[str]) -> list[Score]:
    """One score per result and target."""
    return [
        Score(
            result.method,
            count_name(result.labels),
            result.seed,
            name,
            *(metric(result.truth[:, i], result.measurement.predicted[:, i]) for metric in METRICS.values()),
            float(result.measurement.rotation_std[i]),
            float(result.measurement.quarter_turn_std[i]),
            result.measurement.parameters,
        )
        for result in results
        for i, name in enumerate(names)
    ]


def regression_table(summaries: Sequence[dict[str, Any]]) -> str:
    """The summaries as aligned text."""
    heads = ["method", "labels", "seeds", "target", "MAE", "RMSE", "R²", "rotation std", "at 90° only", "parameters"]
    rows = [
        [
            *(str(row[key]) for key in ("method", "labels", "seeds", "target")),
            *(_plus_minus(row[key], row[f"{key}_std"]) for key in METRICS),
            f"{row['rotation_std']:.3g}",
            f"{row['quarter_turn_std']:.2g}",
            f"{row['parameters']:,}",
        ]
        for row in summaries
    ]
    return aligned(heads, rows)


def summarise_scores(all_scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Mean and spread (over seeds, None for one) per method, number of labels and target; in order of appearance."""
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for score in all_scores:
        groups.setdefault((score.method, score.labels, score.target), []).append(score)
    rows = []
    for (method, labels, target), group in groups.items():
        row: dict[str, Any] = {"method": method, "labels": labels, "target": target, "seeds": len(group)}
        for key in METRICS:
            values = [getattr(score, key) for score in group]
            row |= {key: float(np.mean(values)), f"{key}_std": spread(values)}
        for key in ("rotation_std", "quarter_turn_std"):
            row[key] = float(np.mean([getattr(score, key) for score in group]))
        rows.append(row | {"parameters": group[0].parameters})
    return rows


def write_regression_numbers(
    results: Sequence[RegressionResult], names: Sequence[str], out: Path, settings: dict[str, Any]
) -> list[Path]:
    """Writes results.csv, one line per result and target, and results.json; returns their paths."""
    every = scores(results, names)
    rows = [score._asdict() for score in every]
    content = {"settings": settings, "targets": list(names), "summary": summarise_scores(every), "results": rows}
    return write_rows(rows, content, out)


def draw_regression(results: Sequence[RegressionResult], names: Sequence[str], path: Path) -> None:
    """Predicted against true values: a row of panels per target, a column per method and number of labels."""
    groups: dict[tuple[str, int | None], list[RegressionResult]] = {}
    for result in results:
        groups.setdefault((result.method, result.labels), []).append(result)
    figure, panels = panel_grid(len(names), len(groups))
    for row, name in enumerate(names):
        for column, ((method, labels), group) in enumerate(groups.items()):
            panel = panels[row][column]
            _scatter(panel, group, row)
            panel.set_title(f"{method}, {count_name(labels)} labels", fontsize="small")
            panel.set(xlabel=f"true {name}", ylabel=f"predicted {name}")
    figure.savefig(path, dpi=150)


def _scatter(panel: Axes, group: Sequence[RegressionResult], target: int) -> None:
    truth = np.concatenate([result.truth[:, target] for result in group])
    predicted = np.concatenate([result.measurement.predicted[:, target] for result in group])
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    panel.plot(ends, ends, color="0.6", linewidth=1, linestyle=":")
    panel.scatter(truth, predicted, s=5, alpha=min(0.6, 0.1 + 200 / len(truth)), linewidths=0)
    quality = np.mean([r_squared(result.truth[:, target], result.measurement.predicted[:, target]) for result in group])
    panel.text(0.04, 0.96, f"R² = {quality:.3f}", transform=panel.transAxes, va="top", fontsize="small")
    panel.set_aspect("equal", adjustable="datalim")


def _plus_minus(mean: float, std: float | None) -> str:
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"
