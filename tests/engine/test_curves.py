"""The picture of a run has the method's panels, then those of every method, as far as they were measured."""

import json
from pathlib import Path

import matplotlib.figure
import pytest

from ssl_lens.engine.curves import plot_curves
from ssl_lens.methods.method import Panel


def test_what_was_measured_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"step": 0, "loss": 2.0, "feature_std": 0.5}, {"step": 4, "loss": 1.5, "part": 0.5, "feature_std": 0.7}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, path, dpi: (figures.append(self), save(self, path, dpi=dpi))
    )
    panels = (Panel("loss (nats)", ("loss", "part", "absent"), level=1.7), Panel("nothing", ("absent",)))
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", panels=panels)
    loss, spread = figures[0].axes
    assert [axes.get_title() for axes in (loss, spread)] == ["loss (nats)", "feature std"]
    lines = [line.get_xydata().tolist() for line in loss.lines]
    assert lines[:2] == [[[0, 2.0], [4, 1.5]], [[4, 0.5]]]
    assert list(loss.lines[2].get_ydata()) == [1.7, 1.7]
    assert len(spread.lines) == 1
    assert (tmp_path / "curves.png").stat().st_size > 1000
