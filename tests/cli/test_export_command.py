"""`ssl-lens export` prints how much the features differ; the export itself is tested with the representation."""

from pathlib import Path

import pytest

from ssl_lens.cli import main as cli
from ssl_lens.representation.export import ExportCheck


@pytest.mark.parametrize(
    ("onnx", "line"),
    [(2e-7, "ONNX: features differ from the source's by 2.0e-07"), (None, "ONNX: written, not checked")],
)
def test_export_prints_the_differences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], onnx: float | None, line: str
) -> None:
    given: list[object] = []

    def export(run: Path, out: Path, *, image_size: int | None, pooling: str | None) -> ExportCheck:
        given.extend([run, out, image_size, pooling])
        return ExportCheck(weights=3e-7, onnx=onnx)

    monkeypatch.setattr("ssl_lens.representation.export.export", export)
    assert cli.main(["export", "run", "out", "--image-size", "64", "--pooling", "rings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "out: features differ from the source's by 3.0e-07 (at most 1e-05)"
    assert lines[1].startswith(line)
    assert given == [Path("run"), Path("out"), 64, "rings"]
