"""The loop and the verb `evaluate`, on images in memory and a tiny run."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import STEM, flag_and_enlarge, write_labelled_images, write_run

from ssl_lens.cli.main import main
from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.errors import InputError
from ssl_lens.evaluation.probes.knn import KNN
from ssl_lens.evaluation.table import read_predictions, read_rows
from ssl_lens.evaluation.targets import Target
from ssl_lens.evaluation.verbs import Results, evaluate
from ssl_lens.representation.predictor import load_predictor


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("command") / "tiny", STEM)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_labelled_images(tmp_path_factory.mktemp("data"), per_class=30)


def _value(results: Results, metric: str, **key: str) -> float:
    (value,) = (
        row.value for row in results.table if row.metric == metric and all(row._asdict()[k] == key[k] for k in key)
    )
    return value


def test_tasks_x_probes_next_to_the_baselines_in_one_table(run, data, tmp_path, capsys, monkeypatch):
    extracted = []
    whole = Target._computed
    monkeypatch.setattr(
        Target, "_computed", lambda self, images: extracted.append((self.name, len(images))) or whole(self, images)
    )
    options = "--labels-per-class 4 all --seeds 2 --tasks classification retrieval rotation --probes knn linear ridge"
    options += f" --pooling stats --untrained --pixels --out {tmp_path}/out"
    assert main(["evaluate", str(run), "--data", str(data), *options.split()]) == 0
    rows = read_rows(tmp_path / "out")
    targets = ("tiny", "untrained", "pixels")
    assert sorted(extracted) == sorted((name, count) for name in targets for count in (12, 48)), "once, for everything"
    accuracies = [row for row in rows if row.metric == "accuracy"]
    assert [(row.target, row.probe, row.labels, row.seed) for row in accuracies] == [
        (target, probe, *case)
        for target in targets
        for probe in ("knn", "linear", "ridge")
        for case in [("4", 0), ("4", 1), ("all", 0)]
    ]
    assert all(row.value >= 0.8 for row in accuracies if row.labels == "all")
    assert {row.probe for row in rows if row.task == "retrieval"} == {"features"}
    assert {row.labels for row in rows if row.task == "retrieval"} == {"none"}
    assert len({(row.target, row.probe) for row in rows if row.task == "rotation"}) == 3 * 4
    predictions = read_predictions(tmp_path / "out")
    assert len(predictions) == 3 * 3 * 3
    first = predictions[0]
    assert np.mean(first.scores.argmax(1) == first.truth) == pytest.approx(accuracies[0].value)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["classes"] == ["arc", "ring"]
    assert content["divisions"]["classification"] == {"train": 48, "test": 12}
    report = (tmp_path / "out" / "report.md").read_text()
    for name in ("roc", "confusion", "budgets"):
        assert f"]({name}.png)" in report
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
    text = capsys.readouterr().out
    assert text.startswith("classification\ntarget")
    assert str(tmp_path / "out" / "report.md") in text


def test_in_python_twice_with_a_probe_of_ones_own_and_images_in_memory(run, data):
    images = load_images(data)
    first, second = (
        evaluate(run, data=images, probes=[KNN(5), KNN(5, whiten=4)], labels_per_class=[10], seeds=1) for _ in range(2)
    )
    assert first.table == second.table
    assert {row.probe for row in first.table} == {"knn", "knn_whitened"}
    assert first.files == []
    assert "knn_whitened" in str(first)
    assert first.predictions[0].names == second.predictions[0].names


def test_a_small_set_works_with_the_defaults(run, tmp_path, caplog):
    data = write_labelled_images(tmp_path / "data", per_class=20)
    with caplog.at_level(logging.INFO):
        results = evaluate(run, data=data, seeds=2)
    assert "left out" not in caplog.text  # nobody asked for 100
    assert {row.labels for row in results.table} == {"10", "all"}


def test_three_classes(run, tmp_path):
    data = write_labelled_images(tmp_path / "data", per_class=15, classes=("arc", "blob", "ring"))
    results = evaluate(run, data=data, probes=["knn"], labels_per_class=[None])
    assert _value(results, "auc") > 0.8
    assert {f"recall[{name}]" for name in ("arc", "blob", "ring")} < {row.metric for row in results.table}


def test_anomalies_by_class_and_outliers_without_labels(run, data, tmp_path):
    results = evaluate(run, data=data, anomaly=["ring"], seeds=2, out=tmp_path / "out")
    assert {row.probe for row in results.table} == {"knn", "mahalanobis", "isolation_forest"}
    assert _value(results, "auc", probe="mahalanobis") > 0.9
    assert (tmp_path / "out" / "anomaly_roc.png").is_file()
    outliers = evaluate(run, data=data, tasks=["anomaly"], probes=["knn"], out=tmp_path / "outliers")
    (prediction,) = outliers.predictions
    assert len(prediction.names) == 60
    assert np.isnan(prediction.truth).all()
    (again,) = read_predictions(tmp_path / "outliers")
    np.testing.assert_allclose(again.scores, prediction.scores, rtol=1e-6)


def _blobs(count: int) -> ImageSet:
    """Images of centred blobs with their widths in px and fluxes."""
    rng = np.random.default_rng(0)
    width, flux = rng.uniform(1, 4, count), 10 ** rng.uniform(0, 1, count)
    y, x = np.mgrid[-20:20, -20:20] + 0.5
    images = flux[:, None, None] * np.exp(-(x**2 + y**2) / (2 * width[:, None, None] ** 2))
    images = (1e-12 * (images + rng.normal(0, 0.02, images.shape)))[:, None].astype(np.float32)
    names = tuple(f"{i}.npy" for i in range(count))
    return ImageSet(images, names, None, (), {"width_px": width, "flux": flux})


def test_regression_on_frozen_features_next_to_the_constant(run, tmp_path):
    results = evaluate(
        run,
        data=_blobs(150),
        target_columns=["width_px", "flux"],
        log_targets=["flux"],
        labels=[50, None],
        seeds=1,
        pixels=True,
        out=tmp_path / "out",
        save=tmp_path / "saved",
        probes=["knn", "ridge"],
    )
    errors = {
        probe: _value(results, "rmse[log10 flux]", target=target, probe=probe, labels="all")
        for target, probe in (("tiny", "knn"), ("tiny", "ridge"), ("constant", "constant"))
    }
    assert errors["ridge"] < 0.5 * errors["constant"]
    assert errors["knn"] < errors["constant"]
    assert _value(results, "r2[log10 flux]", target="constant", labels="all") == pytest.approx(0, abs=0.2)
    assert {path.name for path in results.files} >= {"predicted.png", "regression_budgets.png", "report.md"}
    saved = load_predictor(tmp_path / "saved")
    assert saved.outputs.log == (False, True)
    (kept,) = (
        one.scores
        for one in results.predictions
        if (one.key.target, one.key.probe, one.key.labels, one.output) == ("tiny", "ridge", "all", "log10 flux")
    )
    test = [int(name.removesuffix(".npy")) for name in results.predictions[0].names]
    said = saved.predict(_blobs(150).images[test])[:, 1]
    np.testing.assert_allclose(np.log10(said), kept[:, 0], rtol=1e-3)


def test_a_saved_linear_probe_repeats_its_probabilities(run, data, tmp_path):
    results = evaluate(run, data=data, probes=["linear"], labels_per_class=[8], seeds=1, save=tmp_path / "saved")
    (kept,) = results.predictions
    pixels = np.stack([np.load(data / name)[None] for name in kept.names])
    np.testing.assert_allclose(load_predictor(tmp_path / "saved").predict(pixels), kept.scores, atol=1e-4)


def test_flagged_and_unequal_images_are_read_as_the_run_says(tmp_path, caplog):
    """Nothing is asked: the run was made with mask value 100 and sizes=crop on images of 40x40 px."""
    data = write_labelled_images(tmp_path / "data", per_class=15)
    run = write_run(tmp_path / "tiny", "data.mask_value=100", "data.sizes=crop")
    clean = evaluate(run, data=data, probes=["linear"], labels_per_class=[None])
    flag_and_enlarge(data)
    with caplog.at_level(logging.INFO):
        flagged = evaluate(run, data=data, probes=["linear"], labels_per_class=[None])
    assert "8 flagged pixels of 2 images filled" in caplog.text
    assert "30 images of shape (1, 40, 40)" in caplog.text
    assert _value(flagged, "accuracy") == _value(clean, "accuracy") == 1
    with pytest.raises(InputError, match="mixes image shapes"):
        evaluate(write_run(tmp_path / "other"), data=data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--labels-per-class 1000", "--labels-per-class=1000 is not possible: class arc has 24 images to train on"),
        ("--data nowhere", "does not exist"),
        ("--split nowhere.txt", "nowhere.txt cannot be read (No such file"),
        ("--tasks classify", "task classify is unknown; there are classification, regression"),
        ("--probes knm", "probe knm is unknown; there are knn, linear"),
        ("--tasks anomaly --probes linear", "none of the probes linear can do anomaly; add knn or mahalanobis"),
        ("--probes linear --whiten 4", "--whiten is for the probe knn"),
        ("--labels 10", "--labels needs --target-column NAME"),
        ("--target-column mass", "mass is not a number that the images have"),
        ("--pooling max", "max"),
        (f"--out {__file__}/new", "test_protocol.py is not a folder; give another place"),
        (f"--probes linear --save {__file__}", "test_protocol.py is not a folder; give another place"),
    ],
)
def test_bad_input_is_one_line_and_status_2(run, data, capsys, change, message):
    assert main(["evaluate", str(run), "--data", str(data), *change.split()]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert error.count("error: ") == 1
    assert "accuracy" not in error  # nothing was computed


def test_a_folder_that_is_not_a_run(data, capsys, tmp_path):
    assert main(["evaluate", str(tmp_path), "--data", str(data)]) == 2
    assert "neither a run" in capsys.readouterr().err


def test_results_go_into_the_run(run, data):
    assert main(["evaluate", str(run), "--data", str(data), "--labels-per-class", "4", "--probes", "ridge"]) == 0
    with (run / "eval" / "ridge" / "results.csv").open() as file:
        assert next(csv.reader(file)) == ["target", "task", "probe", "labels", "seed", "metric", "value"]
