"""The picture of a run has the method's panels, then those of every method, as far as they were measured."""

import json
from pathlib import Path

import matplotlib.figure
import pytest

from ssl_lens.engine.curves import plot_curves
from ssl_lens.methods.method import Panel


def test_what_was_measured_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        {"step": 0, "loss": 2.0, "feature_std": 0.5},
        {"step": 4, "loss": 1.5, "part": 0.5, "feature_std": 0.7, "probe_knn": 0.8, "probe_knn_whitened": 0.9},
        {"step": 4, "view_auc": 0.9, "rankme": 3.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, path, dpi: (figures.append(self), save(self, path, dpi=dpi))
    )
    panels = (Panel("loss (nats)", ("loss", "part", "absent"), level=1.7), Panel("nothing", ("absent",)))
    baselines = {
        "initial": {"probe_knn": 0.7, "absent": 1.0, "view_auc": 0.6},
        "lens_wavelets": {"probe_knn": 0.6, "probe_knn_whitened": 1.0},
    }
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", panels=panels, baselines=baselines)
    loss, spread, _, views, probe = figures[0].axes
    titles = ["loss (nats)", "feature std", "RankMe", "view AUC", "online kNN accuracy"]
    assert [axes.get_title() for axes in figures[0].axes] == titles
    assert probe.get_position().y1 < loss.get_position().y0  # in a second row
    assert [line.get_ydata()[0] for line in views.lines] == [0.9, 0.6]
    lines = [line.get_xydata().tolist() for line in loss.lines]
    assert lines[:2] == [[[0, 2.0], [4, 1.5]], [[4, 0.5]]]
    assert list(loss.lines[2].get_ydata()) == [1.7, 1.7]
    assert len(spread.lines) == 1
    plain, initial, wavelets, whitened, wavelets_whitened = probe.lines
    assert [line.get_ydata()[0] for line in probe.lines] == [0.8, 0.7, 0.6, 0.9, 1.0]
    assert plain.get_color() == initial.get_color() == wavelets.get_color()
    assert whitened.get_color() == wavelets_whitened.get_color() != plain.get_color()
    assert initial.get_linestyle() != wavelets.get_linestyle() == wavelets_whitened.get_linestyle()
    assert wavelets.get_label() == "probe_knn, lens_wavelets"
    assert (tmp_path / "curves.png").stat().st_size > 1000
