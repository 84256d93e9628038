"""Pictures of the table and of the predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from cycler import cycler
from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, r2_score, roc_auc_score

from ssl_lens.evaluation.metrics import macro_auc, macro_roc, roc
from ssl_lens.evaluation.table import ALL, Prediction, Row

PANEL_INCHES = 3.6
FALSE_POSITIVE_RATES = np.linspace(0, 1, 501)
FRACTIONS = ("accuracy", "auc")  # metrics that are 1 at most
STYLES = cycler(linestyle=["-", "--", ":"]) * cycler(color=color_sequences["tab10"])  # 30 lines that differ
SHOWN_OUTLIERS = 10  # images named in the picture of scores


def draw_roc(predictions: Sequence[Prediction], path: Path) -> None:
    """One panel per number of labels, one line per target and probe: the mean over seeds, its spread shaded."""
    groups = _grouped(predictions)
    counts = list(dict.fromkeys(labels for _, labels in groups))
    figure, panels = _panel_grid(1, len(counts))
    for panel, count in zip(panels[0], counts, strict=True):
        for (method, labels), group in groups.items():
            if labels == count:
                curves = [macro_roc(one.truth, one.scores, FALSE_POSITIVE_RATES) for one in group]
                _roc_line(panel, method, curves, [macro_auc(one.truth, one.scores) for one in group])
        _finish_roc(panel, f"{count} labels per class")
    panels[0][0].set_ylabel("true-positive rate (one-vs-rest mean)")
    figure.savefig(path, dpi=150)


def draw_anomaly_roc(predictions: Sequence[Prediction], path: Path) -> None:
    """One line per target and probe; the right panel shows few false positives, on a logarithmic scale."""
    figure, panels = _panel_grid(1, 2)
    rates = np.concatenate([[0], np.logspace(-4, 0, 400)])
    for (method, _), group in _grouped(predictions).items():
        curves = [roc(one.truth == 1, one.scores[:, 0], rates) for one in group]
        aucs = [float(roc_auc_score(one.truth == 1, one.scores[:, 0])) for one in group]
        for panel in panels[0]:
            _roc_line(panel, method, curves, aucs, rates)
    for panel, title in zip(panels[0], ("anomalies found", "few false alarms"), strict=True):
        _finish_roc(panel, title)
    lowest = 1 / max(2, int((predictions[0].truth == 0).sum()))  # one usual image taken for an anomaly
    panels[0][1].set(xscale="log", xlim=(lowest, 1), aspect="auto")
    panels[0][1].get_legend().remove()
    panels[0][0].set_ylabel("true-positive rate")
    figure.savefig(path, dpi=150)


def draw_scores(predictions: Sequence[Prediction], path: Path) -> None:
    """How unusual all images are, most unusual first, and the names of the first few; a panel per target and probe."""
    groups = _grouped(predictions)
    figure, panels = _panel_grid(1, len(groups))
    for panel, ((method, _), group) in zip(panels[0], groups.items(), strict=True):
        scores = np.mean([one.scores[:, 0] for one in group], axis=0)
        order = np.argsort(-scores, kind="stable")
        panel.plot(np.arange(1, len(order) + 1), scores[order], linewidth=1.5)
        names = "\n".join(group[0].names[i] for i in order[:SHOWN_OUTLIERS])
        panel.text(0.96, 0.96, names, transform=panel.transAxes, va="top", ha="right", fontsize="x-small")
        panel.set_title(method, fontsize="small")
        panel.set(xlabel="rank", xscale="log", ylabel="score")
    figure.savefig(path, dpi=150)


def draw_confusion(predictions: Sequence[Prediction], path: Path) -> None:
    """One row per target and probe, one column per number of labels: fraction of each true class, seeds together."""
    groups = _grouped(predictions)
    methods, counts = (list(dict.fromkeys(keys)) for keys in zip(*groups, strict=True))
    figure, panels = _panel_grid(len(methods), len(counts))
    for row, method in enumerate(methods):
        for column, count in enumerate(counts):
            panel = panels[row][column]
            if (method, count) not in groups:
                panel.set_axis_off()
                continue
            _confusion_panel(panel, groups[method, count])
            panel.set_title(f"{method}, {count} labels per class", fontsize="small")
    figure.savefig(path, dpi=150)


def draw_budgets(rows: Sequence[Row], metrics: Sequence[str], unit: str, path: Path) -> None:
    """One panel per metric: its mean over seeds against the number of labels, with its standard deviation."""
    counts = sorted({row.labels for row in rows}, key=lambda labels: (labels == ALL, labels != ALL and int(labels)))
    methods = list(dict.fromkeys((row.target, row.probe) for row in rows))
    figure, panels = _panel_grid(1, len(metrics))
    for panel, metric in zip(panels[0], metrics, strict=True):
        for place, method in enumerate(methods):
            values = [
                [row.value for row in rows if (row.target, row.probe) == method and (row.labels, row.metric) == key]
                for key in ((count, metric) for count in counts)
            ]
            known = [i for i, group in enumerate(values) if group]
            shift = 0.08 * (place - (len(methods) - 1) / 2) / max(1, len(methods) - 1) * 2  # so that bars do not hide
            panel.errorbar(
                [i + shift for i in known],
                [np.mean(values[i]) for i in known],
                [np.std(values[i], ddof=1) if len(values[i]) > 1 else 0 for i in known],
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1.5,
                label=_method(*method),
            )
        panel.set_xticks(range(len(counts)), counts)
        panel.set(xlabel=unit, ylabel=metric)
        if metric in FRACTIONS:
            panel.set_ylim(top=1.01)  # bars of the spread may reach beyond
        panel.grid(axis="y", color="0.9")
    panels[0][0].legend(fontsize="x-small", frameon=False)
    figure.savefig(path, dpi=150)


def draw_regression(predictions: Sequence[Prediction], path: Path) -> None:
    """Predicted against true values: a row of panels per number, a column per target, probe and number of labels."""
    outputs = list(dict.fromkeys(one.output for one in predictions))
    by_output = [_grouped(one for one in predictions if one.output == output) for output in outputs]
    figure, panels = _panel_grid(len(outputs), len(by_output[0]))
    for row, (output, groups) in enumerate(zip(outputs, by_output, strict=True)):
        for column, ((method, labels), group) in enumerate(groups.items()):
            panel = panels[row][column]
            _scatter(panel, group)
            panel.set_title(f"{method}, {labels} labels", fontsize="small")
            panel.set(xlabel=f"true {output}", ylabel=f"predicted {output}")
    figure.savefig(path, dpi=150)


def _scatter(panel: Axes, group: Sequence[Prediction]) -> None:
    truth = np.concatenate([one.truth for one in group])
    predicted = np.concatenate([one.scores[:, 0] for one in group])
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    panel.plot(ends, ends, color="0.6", linewidth=1, linestyle=":")
    panel.scatter(truth, predicted, s=5, alpha=min(0.6, 0.1 + 200 / len(truth)), linewidths=0)
    quality = np.mean([r2_score(one.truth, one.scores[:, 0]) for one in group])
    panel.text(0.04, 0.96, f"R² = {quality:.3f}", transform=panel.transAxes, va="top", fontsize="small")
    panel.set_aspect("equal", adjustable="datalim")


def _roc_line(
    panel: Axes,
    method: str,
    curves: Sequence[np.ndarray],
    aucs: Sequence[float],
    rates: np.ndarray = FALSE_POSITIVE_RATES,
) -> None:
    mean, std = np.mean(curves, axis=0), np.std(curves, axis=0)
    (line,) = panel.plot(rates, mean, label=f"{method} (AUC {np.mean(aucs):.3f})", linewidth=1.5)
    panel.fill_between(rates, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0)


def _finish_roc(panel: Axes, title: str) -> None:
    panel.plot(FALSE_POSITIVE_RATES, FALSE_POSITIVE_RATES, color="0.7", linewidth=1, linestyle=":")
    panel.set(title=title, xlabel="false-positive rate", xlim=(0, 1), ylim=(0, 1.01))
    panel.set_aspect("equal")
    panel.legend(loc="lower right", fontsize="x-small", frameon=False)


def _confusion_panel(panel: Axes, group: Sequence[Prediction]) -> None:
    classes = group[0].classes
    truth = np.concatenate([one.truth for one in group])
    predicted = np.concatenate([one.scores.argmax(1) for one in group])
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


def _grouped(predictions: Iterable[Prediction]) -> dict[tuple[str, str], list[Prediction]]:
    """Predictions by target with probe and by number of labels, in order of first appearance."""
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for one in predictions:
        groups.setdefault((_method(one.key.target, one.key.probe), one.key.labels), []).append(one)
    return groups


def _method(target: str, probe: str) -> str:
    return probe if target == probe else f"{target}, {probe}"


def _panel_grid(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """A figure of square panels and its axes [rows, columns]."""
    figure = Figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_prop_cycle(STYLES)
    return figure, panels
