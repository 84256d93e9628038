"""What watches a whole run: over a stop, on images that are held out, and what the user is told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stopping import Stopped

from ssl_lens.data.splits import usual_division
from ssl_lens.engine.probe import OnlineProbe
from ssl_lens.engine.sampled_views import SampledViews
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.representation.frozen import load_backbone

Run = Callable[..., Pretraining]
RESNET = "model={name: resnet_micro}"  # a few times as fast as the usual one


def record(run: Pretraining) -> tuple[object, ...]:
    """All that watching leaves, but for times."""
    root = run.folder.root
    lines = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
    measured = [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]
    files = (run.folder.baselines, root / "best" / "best.json")
    return measured, *(json.loads(file.read_text()) for file in files)


def same_weights(one: Pretraining, other: Pretraining) -> bool:
    ours, theirs = (load_file(run.folder.best / "backbone.safetensors") for run in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("labels", [True, False])
def test_a_stopped_run_is_watched_as_one_left_alone(
    run: Run, image_folder: Path, stopped_in_step_3: Stopped, labels: bool
) -> None:
    """Its figures, what it is compared with, measured once, and the best epoch."""
    given = (RESNET, *([f"data.probe={image_folder}"] if labels else []))
    whole = run("whole", *given)
    with stopped_in_step_3():
        run("stopped", *given)
    before = (whole.folder.root.parent / "stopped" / "baselines.json").stat().st_mtime_ns
    resumed = run("stopped", "run.resume=auto", *given)
    assert record(whole) == record(resumed)
    assert same_weights(whole, resumed)
    assert resumed.folder.baselines.stat().st_mtime_ns == before
    measured, baselines, best = record(whole)
    figures = {"sample_rankme", "alignment", "uniformity", "view_auc"}
    figures |= {"probe_knn", "probe_knn_whitened"} if labels else set()
    watched = [line for line in measured if "view_auc" in line]
    assert [line["step"] for line in watched] == [2, 5]
    assert all(figures <= line.keys() for line in watched)
    assert baselines["initial"].keys() == figures
    assert baselines.keys() == ({"initial", "lens_wavelets"} if labels else {"initial"})
    assert best["monitor"] == ("probe" if labels else "views")


def test_the_best_is_a_backbone_that_everything_takes(run: Run, image_folder: Path) -> None:
    """With the weights that the run had then, and its preprocessing."""
    made = run("a", RESNET, "run.keep_checkpoints=5", f"data.probe={image_folder}")
    best = json.loads((made.folder.best / "best.json").read_text())
    kept = load_backbone(made.folder.best)
    steps = best["step"] + 1
    saved = load_file(made.folder.checkpoints / f"step_{steps:08d}" / "method.safetensors")
    prefix = "teacher.backbone."
    assert all(torch.equal(value, saved[prefix + key]) for key, value in kept.backbone.state_dict().items())
    assert kept.preprocess.config() == load_backbone(made.folder.root).preprocess.config()
    assert kept.pooling == "stage_rings"


def hold_out(folder: Path, names: list[str]) -> None:
    rows = [f"{path.relative_to(folder)},{'test' if path.stem in names else 'train'}" for path in folder.rglob("*.npy")]
    (folder / "targets.csv").write_text("\n".join(["name,split", *sorted(rows)]), encoding="utf-8")


def spoil(folder: Path, names: list[str]) -> None:
    """Other pixels, which no class has."""
    rng = np.random.default_rng(1)
    for path in folder.rglob("*.npy"):
        if path.stem in names:
            np.save(path, rng.normal(size=(20, 20)) ** 3)


@pytest.mark.parametrize("simulated", [False, True])
def test_images_that_are_held_out_decide_nothing(
    run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch, simulated: bool
) -> None:
    """Their pixels change neither what is measured nor what is kept; nor does it matter where training images lie."""
    held_out = ["03", "07", "08"]
    hold_out(image_folder, held_out)
    simulate = ("data.path=null", "simulate={count_per_class: 4, image_size: 20, pixel_scale_arcsec: 0.3}")
    given = (RESNET, f"data.probe={image_folder}", *(simulate if simulated else ()))
    before = run("before", *given)
    spoil(image_folder, held_out)
    after = run("after", *given)
    assert record(before) == record(after)
    assert same_weights(before, after)
    spoil(image_folder, ["00", "01", "02", "04", "05"])  # control: those of training do
    assert record(run("others", *given))[0] != record(before)[0]


def judged_by_evaluators(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.npy"))
    _, judged = usual_division(np.array([file.parent.name == "ring" for file in files], np.int64))
    return [files[i] for i in judged]


def test_of_a_set_that_says_nothing_the_fifth_that_evaluators_judge_by_is_left_out(
    tiny_recipe: Callable[..., Recipe], image_folder: Path, tmp_path: Path
) -> None:
    judged = {path.relative_to(image_folder).as_posix() for path in judged_by_evaluators(image_folder)}
    assert len(judged) == 5
    given = RESNET, f"data.probe={image_folder}"
    probe = compose(tiny_recipe("a", *given)).reporter.watch.judge
    assert isinstance(probe, OnlineProbe)
    everything = {path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.npy")}
    assert set(probe.names) == everything - judged
    (tmp_path / "names.txt").write_text("blob/00.npy\nring/05.npy\n", encoding="utf-8")
    excluded = compose(tiny_recipe("b", *given, f"data.exclude={tmp_path / 'names.txt'}")).reporter.watch.judge
    assert set(excluded.names) == everything - {"blob/00.npy", "ring/05.npy"}  # who names them judges by them


def scripted(monkeypatch: pytest.MonkeyPatch, *worth: float, wavelets: float) -> None:
    values = iter(worth)
    monkeypatch.setattr(
        OnlineProbe, "measure", lambda self, backbone: {"probe_knn": next(values), "probe_knn_whitened": 0}
    )
    monkeypatch.setattr(
        OnlineProbe, "measure_wavelets", lambda self: {"probe_knn": 0.1, "probe_knn_whitened": wavelets}
    )
    monkeypatch.setattr(OnlineProbe, "trials", 1000)


def advice(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if "more than the noise" in line.getMessage()]


def test_features_below_those_that_cost_nothing_are_named_once_and_at_the_end(
    run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """From the second epoch in a row on."""
    scripted(monkeypatch, 0.9, 0.8, 0.85, 0.7, 0.89, wavelets=0.95)
    with caplog.at_level(logging.INFO):
        made = run("a", RESNET, f"data.probe={image_folder}", "optim.epochs=4")
    during = [line for line in advice(caplog) if line.startswith("step ")]
    assert [line.split(":")[0] for line in during] == ["step 6"]
    assert "0.850, the fixed ones of lens_wavelets with 0.950, more than the noise of 0.027" in during[0]
    assert "ssl-lens pretrain lenses_minute" in during[0]
    (at_the_end,) = [line for line in advice(caplog) if line.startswith("after the last epoch ")]
    assert "with an accuracy of 0.890, the fixed ones of lens_wavelets with 0.950" in at_the_end
    assert f"the best by probe, 0.890, is of epoch 4: {made.folder.best}" in caplog.text
    assert "before training, initial: probe_knn 0.900, probe_knn_whitened 0.000 (of 1000)" in caplog.text
    assert "before training, lens_wavelets: probe_knn 0.100, probe_knn_whitened 0.950 (of 1000)" in caplog.text


def test_further_training_that_does_not_pay_is_named(
    run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted(monkeypatch, 0.5, 0.9, 0.8, wavelets=0.5)
    made = run("a", RESNET, f"data.probe={image_folder}")
    (line,) = advice(caplog)
    assert line.startswith(
        "after the last epoch the features give 1,000 images of data.probe their class with an accuracy of 0.8"
    )
    assert "those of the best epoch before with 0.900, more than the noise of 0.03" in line
    assert f"take {made.folder.best}, lower optim.epochs or optim.lr" in line


def test_good_features_hear_nothing(
    run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scripted(monkeypatch, 0.9, 0.89, 0.89, wavelets=0.9)
    run("a", RESNET, f"data.probe={image_folder}")
    assert advice(caplog) == []


def test_a_sample_is_the_same_whenever_it_is_asked_for(tiny_recipe: Callable[..., Recipe]) -> None:
    composed = compose(tiny_recipe("a", RESNET))
    (monitor,) = composed.reporter.watch.monitors
    assert isinstance(monitor, SampledViews)
    first, again = list(monitor.sample), list(monitor.sample)
    assert torch.equal(first[0].views, again[0].views)
    assert first[0].views.shape == (2, 24, 1, 16, 16)
    assert first[0].images.shape == (24, 1, 20, 20)
    assert (first[0].views[0] - first[0].views[1]).abs().max() > 0.01
    raw = next(iter(composed.batches.at(0)))[0]  # any image of the set, prepared, is among those of the sample
    prepared = composed.preprocess(raw[:1])
    assert (first[0].images - prepared).abs().amax(dim=(1, 2, 3)).min() < 1e-5
