import csv
import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.data.images import ImageSet
from ssl_lens.errors import InputError
from ssl_lens.evaluation.finetune import Settings, training_processes
from ssl_lens.evaluation.finetune_command import finetune
from ssl_lens.evaluation.metrics import mean_absolute_error, r_squared, root_mean_square_error
from ssl_lens.evaluation.regression import (
    Measurement,
    RegressionResult,
    divide_quantities,
    few_label_measurements,
    huber,
    measure,
    train_regressor,
)
from ssl_lens.evaluation.regression_report import draw_regression, regression_table, scores, summarise_scores


def _blobs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 16, 16] of centred blobs, and their widths in px and fluxes, [N, 2]."""
    rng = np.random.default_rng(0)
    width, flux = rng.uniform(1, 4, count), 10 ** rng.uniform(0, 1, count)
    y, x = np.mgrid[-8:8, -8:8] + 0.5
    images = flux[:, None, None] * np.exp(-(x**2 + y**2) / (2 * width[:, None, None] ** 2))
    images += rng.normal(0, 0.02, images.shape)
    return images[:, None].astype(np.float32), np.stack([width, flux], axis=1)


def _set(values: np.ndarray) -> ImageSet:
    names = tuple(f"{i:03d}.npy" for i in range(len(values)))
    images = np.arange(len(values), dtype=np.float32).reshape(-1, 1, 1, 1)
    return ImageSet(images, names, None, (), {"t": values[:, 0]})


def test_errors_by_hand():
    truth, predicted = np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0])
    assert mean_absolute_error(truth, predicted) == 0.75
    assert root_mean_square_error(truth, predicted) == pytest.approx(np.sqrt(5 / 4))
    assert r_squared(truth, predicted) == pytest.approx(1 - 5 / 14)  # mean 3: 4 + 1 + 0 + 9
    assert r_squared(truth, np.full(4, 3.0)) == 0
    assert np.isnan(r_squared(np.ones(3), predicted[:3]))


def test_huber_is_quadratic_up_to_one_standard_deviation():
    losses = huber(torch.tensor([[0.5, 0.0], [3.0, 0.0]]), torch.zeros(2, 2))
    assert losses.tolist() == [0.125 / 2, 2.5 / 2]


def test_a_network_measures_width_and_flux():
    images, values = _blobs(240)
    prepared = torch.from_numpy(images)
    settings = Settings(epochs=12, batch_size=16, lr=5e-3, augmentation="right-angle")
    torch.manual_seed(0)
    with training_processes(settings, bf16=False) as trainer:
        backbone = ResNet(1, ResNetOptions(width=8, depths=(1, 1)))
        regressor = train_regressor(trainer, backbone, prepared[:180], values[:180], names=["w", "f"], seed=0)
        measurement = measure(trainer, regressor, prepared[180:])
    assert all(r_squared(values[180:, i], measurement.predicted[:, i]) > 0.8 for i in range(2))
    assert measurement.rotation_std.shape == (2,)
    assert measurement.parameters == sum(p.numel() for p in backbone.parameters()) + 2 * 17
    np.testing.assert_allclose(regressor.mean, values[:180].mean(0), rtol=0.1)  # of the part to fit alone


def test_the_division_is_a_seeded_fifth_and_few_labels_are_nested_subsets():
    train, test = divide_quantities(_set(np.arange(50.0)[:, None]), ["t"], None, log_targets=[], labels=[10, None])
    assert (len(train.values), len(test.values)) == (40, 10)
    np.testing.assert_array_equal(train.images.images.ravel(), train.values[:, 0])
    seen = []

    def note(index: np.ndarray, seed: int) -> Measurement:
        seen.append(set(index))
        return Measurement(test.values, np.zeros(1), np.zeros(1), 1)

    results = list(few_label_measurements("m", note, train, test, labels=[10, 20, None], seeds=2))
    assert [(result.labels, result.seed) for result in results] == [(n, s) for n in (10, 20, None) for s in (0, 1)]
    assert [len(index) for index in seen] == [10, 10, 20, 20, 40, 40]
    assert seen[0] < seen[2]
    assert seen[0] != seen[1]


def test_a_split_file_may_name_images_without_a_value(tmp_path):
    values = np.arange(20.0)[:, None]
    values[3] = np.nan
    (tmp_path / "split.txt").write_text("003.npy\n004.npy\n005.npy\n")
    train, test = divide_quantities(_set(values), ["t"], tmp_path / "split.txt", log_targets=[], labels=[None])
    assert test.values.ravel().tolist() == [4, 5]
    assert len(train.values) == 17


def test_logarithms_and_what_has_none():
    images = _set(10.0 ** np.arange(20.0)[:, None])
    train, test = divide_quantities(images, ["t"], None, log_targets=["t"], labels=[None])
    np.testing.assert_allclose(np.sort([*train.values[:, 0], *test.values[:, 0]]), np.arange(20))
    with pytest.raises(InputError, match="--log-target t has no logarithm for 000.npy"):
        divide_quantities(_set(np.arange(20.0)[:, None]), ["t"], None, log_targets=["t"], labels=[None])


def test_images_without_all_targets_are_left_out_and_counted(caplog):
    caplog.set_level(logging.INFO)
    images = _set(np.array([[0.0], [np.nan], [2.0], [3.0], [4.0], [5.0]]))
    train, test = divide_quantities(images, ["t"], None, log_targets=[], labels=[None])
    assert sorted([*train.values[:, 0], *test.values[:, 0]]) == [0, 2, 3, 4, 5]
    assert caplog.messages == ["1 of 6 images left out, without t"]
    with pytest.raises(InputError, match="t is known of 0 of 2 images; .* such as 000.npy"):
        divide_quantities(_set(np.full((2, 1), np.nan)), ["t"], None, log_targets=[], labels=[None])
    with pytest.raises(InputError, match="--target u is no number that the images have; there are t; give a table"):
        divide_quantities(images, ["u"], None, log_targets=[], labels=[None])


def test_a_set_that_holds_images_out_is_divided_so():
    images = dataclasses.replace(_set(np.arange(6.0)[:, None]), held_out=np.arange(6) % 3 == 0)
    train, test = divide_quantities(images, ["t"], None, log_targets=[], labels=[None])
    assert (train.values.ravel().tolist(), test.values.ravel().tolist()) == ([1, 2, 4, 5], [0, 3])
    with pytest.raises(InputError, match="all 6 images are held out for tests"):
        divide_quantities(
            dataclasses.replace(images, held_out=np.full(6, True)), ["t"], None, log_targets=[], labels=[None]
        )


@pytest.mark.parametrize("count", [1, 41])
def test_more_labels_asked_for_than_there_are(count):
    with pytest.raises(InputError, match=f"--labels {count} is not possible; ask for 2 to 40 images, or all"):
        divide_quantities(_set(np.arange(50.0)[:, None]), ["t"], None, log_targets=[], labels=[count])


def test_report_of_results_made_by_hand(tmp_path):
    truth = np.stack([np.linspace(0, 1, 30), np.linspace(5, 6, 30)], axis=1)
    results = [
        RegressionResult(
            "net", count, seed, truth, Measurement(truth + error, np.array([0.1, 0.2]), np.array([0.0, 0.01]), 1234)
        )
        for count, seed, error in [(10, 0, 0.1), (10, 1, 0.3), (None, 0, 0.0)]
    ]
    summary = summarise_scores(scores(results, ["a", "b"]))
    assert [(row["labels"], row["target"], row["seeds"]) for row in summary] == [
        (labels, target, seeds) for labels, seeds in (("10", 2), ("all", 1)) for target in ("a", "b")
    ]
    assert summary[0]["mae"] == pytest.approx(0.2)
    assert summary[0]["mae_std"] == pytest.approx(np.sqrt(0.02))
    assert (summary[3]["r2"], summary[3]["r2_std"], summary[3]["rotation_std"]) == (1, None, 0.2)
    assert "0.2 ± 0.14" in regression_table(summary)
    draw_regression(results, ["a", "b"], tmp_path / "predicted.png")
    with Image.open(tmp_path / "predicted.png") as picture:
        assert picture.size == (2 * 540, 2 * 540)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    images, values = _blobs(60)
    (tmp_path / "data").mkdir()
    lines = ["name,width_px,flux"]
    for i, (image, (width, flux)) in enumerate(zip(images, values, strict=True)):
        np.save(tmp_path / "data" / f"{i}.npy", image)
        lines.append(f"{i}.npy,{width},{flux}")
    (tmp_path / "data" / "targets.csv").write_text("\n".join(lines))
    return tmp_path / "data"


def test_the_command_measures_columns_of_a_table(folder, capsys):
    options = "--target width_px flux --log-target flux --labels 20 all --seeds 2 --epochs 2 --batch-size 8 --out out"
    assert finetune(["resnet_micro", "model.stages=1", "--data", str(folder), *options.split()]) == 0
    with Path("out/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["labels"], row["seed"], row["target"]) for row in rows] == [
        (labels, seed, target) for labels in ("20", "all") for seed in "01" for target in ("width_px", "log10 flux")
    ]
    content = json.loads(Path("out/results.json").read_text())
    assert content["summary"][0]["mae"] == pytest.approx(np.mean([float(row["mae"]) for row in rows[:4:2]]), rel=1e-4)
    assert content["settings"]["augmentation"] == "none"
    assert "out/predicted.png" in capsys.readouterr().out
    assert Path("out/predicted.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--target width", "the nearest are width_px"),
        ("--target name", "there are width_px, flux"),
        ("--target flux --table none.csv", "none.csv cannot be read"),
        ("--target flux --labels-per-class 10", "with --target give --labels N"),
        ("--target flux --log-target width_px", "--log-target width_px is not among --target flux"),
        ("--target flux --labels 1000", "ask for 2 to 48 images"),
        ("--labels 10", "--labels needs --target NAME"),
        ("", "has no labels"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folder, capsys, options, message):
    assert finetune(["resnet_micro", "--data", str(folder), *options.split()]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_constant_target(folder, capsys):
    table = "\n".join(["name,t", *(f"{i}.npy,2.5" for i in range(60))])
    (folder / "targets.csv").write_text(table)
    assert finetune(["resnet_micro", "--data", str(folder), "--target", "t", "--labels", "30"]) == 2
    assert "--target t is 2.5 of all 30 images" in capsys.readouterr().err
