"""The picture of a run: its metrics over the steps."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "loss (nats)": ("loss", "view_loss", "region_loss"),
    "teacher entropy (nats)": ("teacher_entropy", "mean_entropy"),
    "feature std": ("feature_std",),
    "RankMe": ("rankme",),
    "online kNN accuracy": ("probe_knn",),
}


def plot_curves(metrics: Path, picture: Path, *, reference: float | None) -> None:
    """Draws every metric of `metrics` (JSON lines) that was measured; a dashed line at `reference` nats where given."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    panels = {title: keys for title, keys in PANELS.items() if any(key in record for record in records for key in keys)}
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axes, (title, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for key in keys:
            points = [(record["step"], record[key]) for record in records if key in record]
            if points:
                axes.plot(*zip(*points, strict=True), label=key, marker="." if len(points) < 30 else "")
        if "nats" in title and reference is not None:
            axes.axhline(reference, color="grey", linestyle="--", linewidth=1)
        axes.set(title=title, xlabel="step")
        axes.legend(frameon=False)
    figure.savefig(picture, dpi=120)
