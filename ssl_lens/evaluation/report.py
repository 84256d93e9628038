"""Results become a table, a CSV, a JSON file and two pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from ssl_lens.evaluation.metrics import macro_roc
from ssl_lens.evaluation.protocol import Result

PANEL_INCHES = 3.6
FALSE_POSITIVE_RATES = np.linspace(0, 1, 501)


class Summary(NamedTuple):
    """Mean and spread (standard deviation over seeds, None for one seed) of one method at one number of labels."""

    method: str
    labels_per_class: int | None  # None: all
    seeds: int
    accuracy: float
    accuracy_std: float | None
    auc: float
    auc_std: float | None


def summarise(results: Sequence[Result]) -> list[Summary]:
    """One summary per method and number of labels, in order of first appearance."""
    rows = []
    for (method, count), group in _groups(results).items():
        accuracies, aucs = [result.accuracy for result in group], [result.auc for result in group]
        rows.append(
            Summary(method, count, len(group), np.mean(accuracies), _spread(accuracies), np.mean(aucs), _spread(aucs))
        )
    return rows


def table(summaries: Sequence[Summary]) -> str:
    """The summaries as aligned text."""
    width = max(len("method"), *(len(row.method) for row in summaries))
    lines = [f"{'method':<{width}}  {'labels/class':>12}  {'seeds':>5}  {'accuracy':>15}  {'macro AUC':>15}"]
    for row in summaries:
        accuracy, auc = _plus_minus(row.accuracy, row.accuracy_std), _plus_minus(row.auc, row.auc_std)
        lines.append(
            f"{row.method:<{width}}  {_count(row.labels_per_class):>12}  {row.seeds:>5}  {accuracy:>15}  {auc:>15}"
        )
    return "\n".join(lines)


def write_report(results: Sequence[Result], classes: Sequence[str], out: Path, settings: dict[str, Any]) -> list[Path]:
    """Writes results.csv, results.json, roc.png and confusion.png into `out`; returns their paths.

    `settings` (JSON-able) says how the results came about and is stored beside them.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in ("results.csv", "results.json", "roc.png", "confusion.png")]
    _write_csv(results, paths[0])
    _write_json(results, classes, settings, paths[1])
    _draw_roc(results, paths[2])
    _draw_confusion(results, classes, paths[3])
    return paths


def _groups(results: Sequence[Result]) -> dict[tuple[str, int | None], list[Result]]:
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.method, result.labels_per_class), []).append(result)
    return groups


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _count(labels_per_class: int | None) -> str:
    return "all" if labels_per_class is None else str(labels_per_class)


def _plus_minus(mean: float, std: float | None) -> str:
    return f"{mean:.4f}" + (" " * 9 if std is None else f" ± {std:.4f}")


def _write_csv(results: Sequence[Result], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "labels_per_class", "seed", "accuracy", "macro_auc"])
        for result in results:
            count = _count(result.labels_per_class)
            writer.writerow([result.method, count, result.seed, f"{result.accuracy:.6f}", f"{result.auc:.6f}"])


def _write_json(results: Sequence[Result], classes: Sequence[str], settings: dict[str, Any], path: Path) -> None:
    content = {
        "settings": settings,
        "classes": list(classes),
        "summary": [
            row._replace(labels_per_class=_count(row.labels_per_class))._asdict() for row in summarise(results)
        ],
        "results": [
            {
                "method": result.method,
                "labels_per_class": _count(result.labels_per_class),
                "seed": result.seed,
                "accuracy": result.accuracy,
                "auc": result.auc,
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _draw_roc(results: Sequence[Result], path: Path) -> None:
    """One panel per number of labels, one line per method: the mean over seeds, its spread shaded."""
    counts = list(dict.fromkeys(result.labels_per_class for result in results))
    figure, panels = _panels(1, len(counts))
    for panel, count in zip(panels[0], counts, strict=True):
        for (method, group_count), group in _groups(results).items():
            if group_count == count:
                _roc_line(panel, method, group)
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
        panel.set(title=f"{_count(count)} labels per class", xlabel="false-positive rate", xlim=(0, 1), ylim=(0, 1.01))
        panel.set_aspect("equal")
        panel.legend(loc="lower right", fontsize="x-small", frameon=False)
    panels[0][0].set_ylabel("true-positive rate (one-vs-rest mean)")
    figure.savefig(path, dpi=150)


def _roc_line(panel: Axes, method: str, group: Sequence[Result]) -> None:
    curves = np.stack([macro_roc(result.labels, result.probabilities, FALSE_POSITIVE_RATES) for result in group])
    mean, std = curves.mean(0), curves.std(0)
    auc = np.mean([result.auc for result in group])
    (line,) = panel.plot(FALSE_POSITIVE_RATES, mean, label=f"{method} (AUC {auc:.3f})", linewidth=1.5)
    panel.fill_between(FALSE_POSITIVE_RATES, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0)


def _draw_confusion(results: Sequence[Result], classes: Sequence[str], path: Path) -> None:
    """One row per method, one column per number of labels: fraction of each true class, all seeds together."""
    groups = _groups(results)
    methods, counts = (list(dict.fromkeys(keys)) for keys in zip(*groups, strict=True))
    figure, panels = _panels(len(methods), len(counts))
    for row, method in enumerate(methods):
        for column, count in enumerate(counts):
            panel = panels[row][column]
            _confusion_panel(panel, groups[method, count], classes)
            panel.set_title(f"{method}, {_count(count)} labels per class", fontsize="small")
    figure.savefig(path, dpi=150)


def _confusion_panel(panel: Axes, group: Sequence[Result], classes: Sequence[str]) -> None:
    truth = np.concatenate([result.labels for result in group])
    predicted = np.concatenate([result.probabilities.argmax(1) for result in group])
    ticks = range(len(classes))
    fractions = confusion_matrix(truth, predicted, labels=ticks, normalize="true")
    panel.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for i in ticks:
        for j in ticks:
            color = "white" if fractions[i, j] > 0.6 else "black"
            panel.text(j, i, f"{fractions[i, j]:.2f}", ha="center", va="center", color=color, fontsize="small")
    panel.set_xticks(ticks, classes, rotation=30, ha="right", fontsize="small")
    panel.set_yticks(ticks, classes, fontsize="small")
    panel.set(xlabel="predicted", ylabel="true")


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
