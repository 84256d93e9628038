"""Shipped recipes on images of any size, from the first step to the embedding: what is measured is what is exported."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import write_run

import ssl_lens
from ssl_lens.errors import InputError
from ssl_lens.recipe.recipe import load_recipe
from ssl_lens.recipe.start import crops_that_fit
from ssl_lens.runs.folder import RunFolder

QUICK = [
    *("optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=6", "run.device=cpu", "run.cpu_threads=1"),
    *("method.out_dim=8", "method.head_hidden_dim=8", "method.head_bottleneck_dim=4", "optim.precision=no"),
]


def rings(root: Path, side: int, per_class: int = 6) -> Path:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    for radius, name in ((10, "lens"), (18, "nolens")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            image = np.exp(-(((np.hypot(x, y) - radius) / 2) ** 2)) + rng.normal(0, 0.05, (side, side))
            np.save(root / name / f"{i}.npy", image.astype(np.float32))
    return root


@pytest.mark.parametrize(
    ("recipe", "side", "seen"),
    [
        ("esvit_micro", 101, 100),
        pytest.param("esvit_micro", 150, 148, marks=pytest.mark.slow),
        pytest.param("esvit_micro", 198, 196, marks=pytest.mark.slow),
        pytest.param("esvit_micro", 334, 332, marks=pytest.mark.slow),
        pytest.param("lenses_cpu", 101, 50, marks=pytest.mark.slow),
        pytest.param("lenses_cpu", 150, 52, marks=pytest.mark.slow),
        pytest.param("lenses_cpu", 334, 52, marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("no_onnx")
def test_from_the_first_step_to_the_embedding(tmp_path: Path, recipe: str, side: int, seen: int) -> None:
    data = rings(tmp_path / "data", side)
    places = [f"data.path={data}", f"data.probe={data}", f"run.folder={tmp_path / 'run'}"]
    run = ssl_lens.pretrain(recipe, [*QUICK, *places])
    assert 0 <= run.metrics[-1]["probe_knn"] <= 1
    kept = json.loads(RunFolder(run.folder).preprocess.read_text())
    ours = ssl_lens.load_backbone(run.folder)
    raw = torch.from_numpy(np.stack([np.load(file) for file in sorted(data.rglob("*.npy"))]))
    assert json.loads(json.dumps(ours.preprocess.config())) == kept
    assert ours.prepare(raw).shape == (12, 1, seen, seen)
    found = ssl_lens.evaluate(run.folder, data=data, probes=["knn"], seeds=1)
    assert any(row.metric == "accuracy" for row in found.table)
    ssl_lens.export(run.folder, tmp_path / "backbone")
    embedded = ssl_lens.embed(tmp_path / "backbone", data, tmp_path / "out.npy")
    vectors = np.load(embedded.path)
    assert np.abs(vectors - ours(raw).features.numpy()).max() <= 1e-5 * np.abs(vectors).max()


def test_a_crop_that_became_smaller_is_the_same_on_resume(tmp_path: Path) -> None:
    """The recipe that a run keeps has the crops that were made."""
    data = rings(tmp_path / "data", 40)
    places = [f"data.path={data}", f"run.folder={tmp_path / 'run'}", "run.resume=auto"]
    run = ssl_lens.pretrain("esvit_micro", [*QUICK, *places])
    kept = load_recipe(RunFolder(run.folder).recipe)
    assert (kept.views.global_size, kept.views.local_sizes) == (40, (32,))
    assert crops_that_fit(kept, 1, 40, 40)[1] == []
    steps = len(run.metrics)
    assert len(ssl_lens.pretrain("esvit_micro", [*QUICK, *places]).metrics) == steps  # nothing is left to do


def test_images_too_small_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    """Also where another network, first in the list, would take them."""
    run, data = write_run(tmp_path / "run"), rings(tmp_path / "data", 30)
    for refused in (
        lambda: ssl_lens.evaluate(["resnet_micro", run], data=data, probes=["knn"], seeds=1, out=tmp_path / "out"),
        lambda: ssl_lens.embed(run, data, tmp_path / "out.npy"),
    ):
        with pytest.raises(
            InputError, match=r"center_crop=32 exceeds the images of 30x30 px; set center_crop to 30 or"
        ):
            refused()
    assert not list(tmp_path.glob("out*"))
