"""The scripts in eval/ as their `main`s; test_cli.py starts one as a process."""

import csv
import json
import logging
from pathlib import Path

import pytest
from tiny_run import STEM, flag_and_enlarge, write_labelled_images, write_run

from ssl_lens.evaluation.command import knn, linear_probe


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("command") / "tiny", STEM)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_labelled_images(tmp_path_factory.mktemp("data"), per_class=30)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def _rows(out: Path) -> list[dict]:
    assert (out / "roc.png").stat().st_size > 10_000
    assert (out / "confusion.png").stat().st_size > 5_000
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(("command", "name"), [(knn, "knn"), (linear_probe, "linear_probe")])
def test_frozen_evaluation_beside_its_baselines(run, data, capsys, command, name):
    arguments = f"{run} --data {data} --labels-per-class 4 all --seeds 2 --pooling stats --untrained --pixels".split()
    assert command(arguments) == 0
    rows = _rows(run / "eval" / name)
    assert [(row["method"], row["labels_per_class"], row["seed"]) for row in rows] == [
        (method, *case) for method in ("tiny", "untrained", "pixels") for case in [("4", "0"), ("4", "1"), ("all", "0")]
    ]
    assert all(float(row["accuracy"]) >= 0.8 for row in rows if row["labels_per_class"] == "all")
    content = json.loads((run / "eval" / name / "results.json").read_text())
    assert content["classes"] == ["arc", "ring"]
    assert (content["settings"]["train_images"], content["settings"]["test_images"]) == (48, 12)
    table = capsys.readouterr().out
    assert table.count(" ± ") == 6
    assert str(run / "eval" / name / "roc.png") in table


def test_three_classes_and_a_folder_of_ones_own(run, tmp_path):
    data = write_labelled_images(tmp_path / "data", per_class=15, classes=("arc", "blob", "ring"))
    assert knn(f"{run} --data {data} --labels-per-class all --out {tmp_path / 'out'}".split()) == 0
    assert float(_rows(tmp_path / "out")[0]["macro_auc"]) > 0.8


def test_whitened_neighbours_are_a_method_of_their_own(run, data):
    assert knn(f"{run} --data {data} --labels-per-class all --whiten 4 --untrained".split()) == 0
    rows = _rows(run / "eval" / "knn")
    assert [row["method"] for row in rows] == ["tiny", "tiny, whitened", "untrained", "untrained, whitened"]


def test_flagged_and_unequal_images_are_read_as_the_run_says(tmp_path, caplog, capsys):
    """Nothing is asked: the run was made with mask value 100 and sizes=crop on images of 40x40 px."""
    data = write_labelled_images(tmp_path / "data", per_class=15)
    run = write_run(tmp_path / "tiny", "data.mask_value=100", "data.sizes=crop")
    arguments = f"--data {data} --labels-per-class all".split()
    assert linear_probe([str(run), *arguments, "--out", str(tmp_path / "clean")]) == 0
    flag_and_enlarge(data)
    with caplog.at_level(logging.INFO):
        assert linear_probe([str(run), *arguments, "--out", str(tmp_path / "flagged")]) == 0
    assert "8 flagged pixels of 2 images filled" in caplog.text
    assert "30 images of shape (1, 40, 40)" in caplog.text
    clean, flagged = (_rows(tmp_path / name)[0] for name in ("clean", "flagged"))
    assert float(flagged["accuracy"]) == float(clean["accuracy"]) == 1
    other = write_run(tmp_path / "other")
    assert linear_probe([str(other), *arguments]) == 2
    assert "mixes image shapes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--labels-per-class", "1000"], "exceeds the 24 training images of class arc"),
        (["--data", "nowhere"], "does not exist"),
        (["--split", "nowhere.txt"], "split file nowhere.txt cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, data, capsys, change, message):
    assert knn([str(run), "--data", str(data), "--labels-per-class", "all", *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_folder_that_is_no_run_and_images_without_labels(run, data, capsys, tmp_path):
    assert knn([str(tmp_path), "--data", str(data)]) == 2
    assert "neither a run" in capsys.readouterr().err
    (tmp_path / "flat").mkdir()
    for file in (data / "arc").iterdir():
        (tmp_path / "flat" / file.name).write_bytes(file.read_bytes())
    assert linear_probe([str(run), "--data", str(tmp_path / "flat")]) == 2
    assert "has no labels" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--labels-per-class", "some"], ["--pooling", "max"]])
def test_options_out_of_range_are_refused(run, data, capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        knn([str(run), "--data", str(data), *arguments])
    assert arguments[0] in capsys.readouterr().err
