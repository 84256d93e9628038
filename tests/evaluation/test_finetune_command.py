"""The command `python eval/finetune.py` as its `main`."""

import csv
import json
import logging
from pathlib import Path

import pytest
from tiny_run import RECIPE, STEM, flag_and_enlarge, write_labelled_images, write_run

from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.evaluation.finetune_command import finetune
from ssl_lens.representation.frozen import load_preprocess

QUICK = "--labels-per-class 8 --seeds 1 --epochs 1 --batch-size 8"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("command") / "tiny", STEM)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_labelled_images(tmp_path_factory.mktemp("data"), per_class=30)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)


def _rows(out: Path) -> list[dict]:
    assert (out / "roc.png").stat().st_size > 10_000
    assert (out / "confusion.png").stat().st_size > 5_000
    with (out / "results.csv").open() as file:
        return list(csv.DictReader(file))


def _error(capsys) -> str:
    error = capsys.readouterr().err
    line = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(line) == 1
    assert error.endswith(line[0] + "\n")
    return line[0]


def test_fine_tuning_beside_training_from_scratch(run, data):
    arguments = f"{run} --data {data} --labels-per-class 8 --seeds 2 --epochs 3 --batch-size 8 --lr 2e-3 --scratch"
    assert finetune(arguments.split()) == 0
    rows = _rows(run / "eval" / "finetune")
    assert [row["method"] for row in rows] == ["tiny fine-tuned"] * 2 + ["from scratch"] * 2
    assert all(float(row["macro_auc"]) >= 0.9 for row in rows)


def test_a_recipe_is_trained_from_scratch(data, tmp_path, capsys):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    arguments = f"{recipe} --data {data} --labels-per-class all --seeds 1 --epochs 4 --lr 2e-3".split()
    assert finetune(arguments) == 0
    out = tmp_path / "runs" / "supervised" / "small"
    assert _rows(out)[0]["method"] == "small from scratch"
    capsys.readouterr()
    assert finetune(arguments) == 2
    assert "runs/supervised/small holds results already; give --out FOLDER" in _error(capsys)


def test_a_network_is_trained_by_its_name_with_what_is_overridden(data, tmp_path, capsys):
    arguments = f"resnet_micro data.center_crop=32 --data {data} {QUICK} data.bin=2 model.stages=2 --out {tmp_path}/out"
    assert finetune(arguments.split()) == 0
    (row,) = _rows(tmp_path / "out")
    assert row["method"] == "resnet_micro from scratch"
    # stem 9*32, norms; stage 1: 2 * 9*32*32; stage 2: 9*32*64 + 9*64*64 + 32*64; every norm 2 * width; head 65 * 2
    convolutions = 288 + 2 * 9216 + 18432 + 36864 + 2048
    assert int(row["parameters"]) == convolutions + 2 * (3 * 32 + 3 * 64) + 130
    assert float(row["quarter_turn_logit_std"]) > 0
    table = capsys.readouterr().out
    assert f"{int(row['parameters']):,}" in table
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["summary"][0]["logit_std"] == pytest.approx(float(row["logit_std"]), rel=1e-4)
    with (tmp_path / "out" / "training.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    assert (epoch["images"], epoch["epoch"], epoch["validation_loss"]) == ("16", "1", "")


def test_flagged_and_unequal_images_are_read_as_the_recipe_or_the_run_says(tmp_path, caplog):
    data = write_labelled_images(tmp_path / "data", per_class=15)
    flag_and_enlarge(data)
    run = write_run(tmp_path / "tiny", "data.mask_value=100", "data.sizes=crop")
    named = ["resnet_micro", "model.stages=1", "data.mask_value=100", "data.sizes=pad", "--save", "saved"]
    for model, shape in (([str(run)], "(1, 40, 40)"), (named, "(1, 44, 42)"), (["saved"], "(1, 44, 42)")):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert finetune([*model, "--data", str(data), *QUICK.split(), "--out", f"out/{model[0]}"]) == 0
        assert "8 flagged pixels of 2 images filled" in caplog.text
        assert f"30 images of shape {shape}" in caplog.text
    assert load_preprocess("saved").policy == PixelPolicy(100, sizes="pad", size=(44, 42))


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("resnet19", "", "resnet18"),
        ("resnet18", "model.nam=2", "unknown key model.nam"),
        ("resnet18", "data.bin=3", "data.bin=3 does not divide 40x40 px"),
        ("nowhere.yaml", "", "recipe nowhere.yaml does not exist"),
        ("runs/none", "", "neither a run"),
        ("RUN", "data.bin=2", "data.bin=2 cannot change"),
        ("RUN", "--data nowhere", "does not exist"),
        ("RUN", "--labels-per-class 1000", "exceeds the 24 training images of class arc"),
        ("swin_tiny", "data.center_crop=37", "37"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, data, capsys, model, change, message):
    model = str(run) if model == "RUN" else model
    assert finetune([model, "--data", str(data), *QUICK.split(), *change.split()]) == 2
    assert message in _error(capsys)
