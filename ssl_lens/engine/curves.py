"""The picture of a run: its metrics over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure

from ssl_lens.methods.method import Panel
from ssl_lens.runs.folder import records

COMMON = (  # of every method
    Panel("feature std", ("feature_std",)),
    Panel("RankMe", ("rankme",)),
    Panel("view AUC", ("view_auc",)),
    Panel("online kNN accuracy", ("probe_knn", "probe_knn_whitened")),
)
IN_A_ROW = 4
PANEL_INCHES = (4.2, 3.4)
MARGIN_INCHES = (0.7, 0.15, 0.5, 0.35)  # of a panel: left, right, bottom, top
LINES = (":", "--", "-.")  # of baselines, in their order


def plot_curves(
    metrics: Path, picture: Path, *, panels: Sequence[Panel], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Draws a method's panels and those common to all, as far as `metrics` (JSON lines) holds what they show.

    Args:
        baselines: values of some of the metrics by what they were measured on; level lines of the curves' colours.
    """
    measurements = list(records(metrics))
    measured = {key for record in measurements for key in record}
    drawn = [panel for panel in (*panels, *COMMON) if measured.intersection(panel.metrics)]
    rows = -(-len(drawn) // IN_A_ROW)
    columns = -(-len(drawn) // rows)
    width, height = PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows
    figure = Figure(figsize=(width, height))  # with margins that are known: constrained layout draws everything twice
    left, right, bottom, top = MARGIN_INCHES
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=(left + right) / (PANEL_INCHES[0] - left - right),
        hspace=(bottom + top) / (PANEL_INCHES[1] - bottom - top),
    )
    for place, panel in enumerate(drawn, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for key in panel.metrics:
            points = [(record["step"], record[key]) for record in measurements if key in record]
            if not points:
                continue
            (curve,) = axes.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 30 else "")
            for (name, figures), style in zip(baselines.items(), cycle(LINES)):
                if key in figures:
                    label = f"{key}, {name}"
                    axes.axhline(figures[key], color=curve.get_color(), linestyle=style, linewidth=1, label=label)
        if panel.level is not None:
            axes.axhline(panel.level, color="grey", linestyle="--", linewidth=1)
        axes.set(title=panel.title, xlabel="step")
        axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)
