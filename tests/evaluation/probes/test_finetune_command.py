"""The command `ssl-lens finetune` as its `main`."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tiny_run import RECIPE, STEM, flag_and_enlarge, write_labelled_images, write_run

from ssl_lens.cli.main import main
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.evaluation.table import Row, read_predictions, read_rows
from ssl_lens.representation.description import load_preprocess
from ssl_lens.representation.predictor import load_predictor

QUICK = "--labels-per-class 8 --seeds 1 --epochs 1 --batch-size 8"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("command") / "tiny", STEM)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """With a table of numbers: the width of the blob, and of all images the same."""
    folder = write_labelled_images(tmp_path_factory.mktemp("data"), per_class=30)
    lines = [f"{name}/{i:03d}.npy,{width},7" for name, width in (("arc", 2), ("ring", 5)) for i in range(30)]
    (folder / "targets.csv").write_text("\n".join(["name,width_px,same", *lines]))
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def finetune(arguments: list[str]) -> int:
    return main(["finetune", *arguments])


def _of(rows: list[Row], metric: str) -> list[Row]:
    return [row for row in rows if row.metric == metric]


def _error(capsys) -> str:
    error = capsys.readouterr().err
    line = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(line) == 1
    assert error.endswith(line[0] + "\n")
    return line[0]


def test_fine_tuning_next_to_training_from_scratch(run, data):
    arguments = f"{run} --data {data} --labels-per-class 8 --seeds 2 --epochs 6 --batch-size 8 --lr 2e-3 --scratch"
    assert finetune(arguments.split()) == 0
    aucs = _of(read_rows(run / "eval" / "finetune"), "auc")
    assert [(row.target, row.probe, row.seed) for row in aucs] == [
        (target, "finetune", seed) for target in ("tiny", "untrained") for seed in (0, 1)
    ]
    assert all(row.value >= 0.9 for row in aucs)


def test_a_recipe_is_trained_from_scratch(data, tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(RECIPE)
    arguments = f"small.yaml --data {data} --labels-per-class all --seeds 1 --epochs 2 --lr 2e-3".split()
    assert finetune(arguments) == 0
    assert {row.target for row in read_rows(tmp_path / "runs" / "supervised" / "small")} == {"small"}
    capsys.readouterr()
    assert finetune(arguments) == 2
    assert "runs/supervised/small holds results already; give --out FOLDER" in _error(capsys)


def test_a_network_is_trained_by_its_name_with_what_is_overridden(data, tmp_path, capsys):
    arguments = f"resnet_micro data.center_crop=32 --data {data} {QUICK} data.bin=2 model.stages=2 --out {tmp_path}/out"
    assert finetune(arguments.split()) == 0
    rows = read_rows(tmp_path / "out")
    (parameters,) = _of(rows, "parameters")
    # stem 9*32, norms; stage 1: 2 * 9*32*32; stage 2: 9*32*64 + 9*64*64 + 32*64; every norm 2 * width; head 65 * 2
    convolutions = 288 + 2 * 9216 + 18432 + 36864 + 2048
    assert int(parameters.value) == convolutions + 2 * (3 * 32 + 3 * 64) + 130
    assert _of(rows, "std_4x90")[0].value > 0
    assert f"{int(parameters.value):,}" in capsys.readouterr().out
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


def test_a_saved_classifier_repeats_its_results(data, tmp_path):
    options = f"--data {data} --labels-per-class 8 all --seeds 1 --epochs 2 --lr 2e-3 --out out --save saved"
    assert finetune(["resnet_micro", "data.center_crop=32", "model.stages=2", *options.split()]) == 0
    saved = load_predictor("saved")
    kept = read_predictions(tmp_path / "out")[-1]
    assert (kept.key.labels, kept.classes) == ("all", saved.outputs.classes)
    pixels = np.stack([np.load(data / name)[None] for name in kept.names])
    np.testing.assert_allclose(saved.predict(pixels), kept.scores, atol=1e-5)


def test_columns_of_a_table_are_measured_next_to_the_constant(data, tmp_path):
    options = "--target width_px --log-target width_px --labels 20 --seeds 1 --epochs 2 --batch-size 8 --out out"
    options += " --pooling stats --save saved"
    assert finetune(["resnet_micro", "model.stages=1", "--data", str(data), *options.split()]) == 0
    rows = read_rows(tmp_path / "out")
    assert [(row.probe, row.labels) for row in _of(rows, "mae[log10 width_px]")] == [
        ("finetune", "20"),
        ("constant", "20"),
    ]
    assert [row.labels for row in _of(rows, "std_8x45[log10 width_px]")] == ["20"]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["target_columns"] == ["width_px"]
    assert (tmp_path / "out" / "predicted.png").stat().st_size > 10_000
    saved = load_predictor("saved")
    assert (saved.outputs.targets, saved.outputs.log) == (("width_px",), (True,))
    assert saved.network.pooling == "stats"


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        ("resnet19", "", "resnet18"),
        ("resnet18", "model.nam=2", "unknown key model.nam"),
        ("resnet18", "data.bin=41", "data.bin=41"),
        ("nowhere.yaml", "", "nowhere.yaml does not exist"),
        ("runs/none", "", "neither a run"),
        ("RUN", "data.bin=2", "data.bin=2 cannot change"),
        ("RUN", "--data nowhere", "does not exist"),
        ("RUN", "--labels-per-class 1000", "--labels-per-class=1000 is not possible"),
        ("swin_tiny", "data.center_crop=3", "3"),
        ("RUN", "--target width", "the nearest are width_px"),
        ("RUN", "--target same --labels 30", "same is 7 of all 48 images"),
        ("RUN", "--target width_px --log-target same", "--log-target=same is not one of --target-column"),
        ("RUN", "--target width_px --table none.csv", "none.csv cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, data, capsys, model, change, message):
    model = str(run) if model == "RUN" else model
    quick = QUICK.replace("--labels-per-class 8", "") if "--labels-per-class" in change else QUICK  # lists add up
    assert finetune([model, "--data", str(data), *quick.split(), "--out", "out", *change.split()]) == 2
    assert message in _error(capsys)
