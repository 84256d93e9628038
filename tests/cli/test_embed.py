"""The command `ssl-lens embed`."""

import pyarrow.parquet as pq
import pytest
from tiny_run import write_labelled_images, write_run

from ssl_lens.cli import main as cli


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_a_folder_is_embedded(tmp_path, capsys):
    write_run(tmp_path / "run")
    write_labelled_images(tmp_path / "data", per_class=3)
    assert cli.main(["embed", "run", "data", "e.parquet"]) == 0
    assert "e.parquet: 6 images, vectors of 768 numbers" in capsys.readouterr().out
    more = ["--which", "view", "--batch-size", "2", "--layout", "folders"]
    assert cli.main(["embed", "run", "data", "e.parquet", *more]) == 0
    table = pq.read_table("e.parquet")
    assert table["label"].to_pylist() == ["arc"] * 3 + ["ring"] * 3
    assert len(table["vector"][0]) == 96


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    write_labelled_images(tmp_path / "data", per_class=1)
    assert cli.main(["embed", "data", "data", "e.parquet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "neither a run" in error
