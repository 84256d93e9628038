"""Pictures of how well classifiers do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from ssl_lens.evaluation.metrics import macro_roc
from ssl_lens.evaluation.protocol import Result, count_name, grouped

PANEL_INCHES = 3.6
FALSE_POSITIVE_RATES = np.linspace(0, 1, 501)


def draw_roc(results: Sequence[Result], path: Path) -> None:
    """One panel per number of labels, one line per method: the mean over seeds, its spread shaded."""
    counts = list(dict.fromkeys(result.labels_per_class for result in results))
    figure, panels = panel_grid(1, len(counts))
    for panel, count in zip(panels[0], counts, strict=True):
        for (method, group_count), group in grouped(results).items():
            if group_count == count:
                _roc_line(panel, method, group)
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1, linestyle=":")
        panel.set(
            title=f"{count_name(count)} labels per class", xlabel="false-positive rate", xlim=(0, 1), ylim=(0, 1.01)
        )
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


def draw_confusion(results: Sequence[Result], classes: Sequence[str], path: Path) -> None:
    """One row per method, one column per number of labels: fraction of each true class, all seeds together."""
    groups = grouped(results)
    methods, counts = (list(dict.fromkeys(keys)) for keys in zip(*groups, strict=True))
    figure, panels = panel_grid(len(methods), len(counts))
    for row, method in enumerate(methods):
        for column, count in enumerate(counts):
            panel = panels[row][column]
            _confusion_panel(panel, groups[method, count], classes)
            panel.set_title(f"{method}, {count_name(count)} labels per class", fontsize="small")
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


def panel_grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square panels and its axes [rows, columns]."""
    figure = Figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)
