"""Collapses planted in real runs are named, with what to change; healthy runs are told nothing."""

import json

import numpy as np
import pytest
from whole_runs import Runs

from ssl_lens.losses import region
from ssl_lens.losses.center import SinkhornKnopp

WHOLE = pytest.mark.reliability
# A network, and a recipe for it, that stay healthy; each collapse changes a thing or two of it.
HEALTHY = (
    "views={global_size: 32, local_sizes: [16], local_counts: [2]}",
    "model={name: swin_micro, patch_size: 4, window_size: 4, stages: 2, drop_path: 0.0}",
    "method={view_weight: 1.0, region_weight: 0.0, out_dim: 64, head_hidden_dim: 64, head_bottleneck_dim: 32, "
    "head_batch_norm: true, ema_momentum: 0.8}",
    "optim={epochs: 24, batch_size: 32, warmup_epochs: 1, lr: 1e-3, weight_decay_end: 0.04}",
)
SINKHORN = "method.centering=sinkhorn"
BOTH = ("method.view_weight=0.5", "method.region_weight=0.5", SINKHORN)
FAST = "optim.epochs=3"
UNCENTRED = "method.center_momentum=1"


@pytest.fixture
def lenses(runs: Runs) -> Runs:
    """Runs on 64 drawn lenses of 32 px."""
    folder = runs.root / "lenses"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(64):
        np.save(folder / f"{i:02d}.npy", _lens(rng).astype(np.float32))
    return runs


def _lens(rng: np.random.Generator) -> np.ndarray:
    """A galaxy, and around it a ring or two or four arcs, under noise."""
    x_center, y_center = rng.normal(0, 0.7, 2)
    y, x = np.mgrid[-16:16, -16:16] + 0.5
    radius, angle = np.hypot(x - x_center, y - y_center), np.arctan2(y - y_center, x - x_center)
    arcs = 1 + np.cos(rng.choice([0, 1, 2, 4]) * (angle - rng.uniform(0, 2 * np.pi)))
    ring = arcs * np.exp(-((radius - rng.uniform(5, 11)) ** 2) / (2 * rng.uniform(0.6, 1.4) ** 2))
    galaxy = rng.uniform(0.5, 3) * np.exp(-radius / rng.uniform(1, 2.5))
    return rng.uniform(0.5, 2) * ring + galaxy + rng.normal(0, 0.05, x.shape)


def _train(lenses: Runs, *overrides: str, before=None) -> tuple[list[str], list[dict[str, float]]]:
    """The advice on the console, and what was measured."""
    here = f"data={{path: {lenses.root / 'lenses'}, stretch: asinh}}", "run.log_steps=2", "run.checkpoint_epochs=100"
    assert lenses.finish("a", *HEALTHY, *here, *overrides, before=before) == 0, lenses.said("a")
    advice = [line for line in lenses.said("a").splitlines() if line.startswith("step ")]
    lines = (lenses.folder("a") / "metrics.jsonl").read_text().splitlines()
    return advice, [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("overrides", "named", "change"),
    [
        pytest.param(
            ("method.teacher_temp=1", "method.student_temp=1", FAST),
            "the teacher's targets of views are uniform, of entropy ln K = 4.159",
            "lower method.teacher_temp",
            id="a hot teacher",
        ),
        pytest.param(
            (UNCENTRED, "method.head_batch_norm=false", "optim.epochs=5"),
            "the teacher gives all views the same one or two prototypes",
            "set method.center_momentum=0.9",
            marks=WHOLE,
            id="no centre",
        ),
        pytest.param(
            (UNCENTRED, "method.teacher_temp=0.1"),
            "the teacher gives all views the same target, of several prototypes",
            "set method.center_momentum=0.9",
            marks=WHOLE,
            id="no centre and no sharpening",
        ),
        pytest.param(
            (SINKHORN, "optim.lr=1"),
            "the features hardly differ between images",
            "lower the learning rate",
            marks=WHOLE,
            id="a learning rate far too high",
        ),
    ],
)
def test_a_collapse_is_named_with_what_to_change(lenses, overrides, named, change):
    advice, _ = _train(lenses, *overrides)
    (line,) = [line for line in advice if named in line]  # and said once
    assert change in line


@WHOLE
def test_regions_that_collapse_are_named_next_to_healthy_views(lenses):
    """One loss of two, by a patch: its teacher is as hot as it would be at 25 times `teacher_temp`."""
    advice, measured = _train(lenses, *BOTH, before=_heat_regions)
    (line,) = advice
    assert "the teacher's targets of regions are uniform" in line
    assert measured[-1]["region_information"] < 1e-3
    assert measured[-1]["view_information"] > 0.1


def _heat_regions() -> None:
    class Hot(SinkhornKnopp):
        def targets(self, logits, teacher_temp):
            return super().targets(logits, 25 * teacher_temp)

    build = region.RegionLoss.__init__
    region.RegionLoss.__init__ = lambda loss, centering, student_temp: build(loss, Hot(), student_temp)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((FAST,), id="fast"),
        pytest.param((), marks=WHOLE, id="view loss, centre"),
        pytest.param((*BOTH, "seed=1"), marks=WHOLE, id="both losses, Sinkhorn"),
        pytest.param(
            (*BOTH, "model={name: resnet_micro, stem: {group: C4, fields: 4, kernel_size: 3}}", "seed=5"),
            marks=WHOLE,
            id="equivariant stem",
        ),
    ],
)
def test_a_healthy_run_is_told_nothing(lenses, overrides):
    advice, measured = _train(lenses, *overrides)
    assert advice == []
    for kind in ("view", "region"):
        assert all(line.get(f"{kind}_information", 1) > 0.1 for line in measured)
    assert measured[-1]["feature_std"] > 0.2
    assert measured[-1]["rankme"] > 7
