"""Tiny runs: seconds on one core."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from stopping import Stopped

from ssl_lens.engine.loop import Step
from ssl_lens.engine.reporter import Reporter
from ssl_lens.engine.signals import InterruptedRun
from ssl_lens.recipe import compose as composing
from ssl_lens.recipe.compose import Pretraining
from ssl_lens.recipe.recipe import Recipe, load_recipe

TINY = """
data: {path: %s}
views: {global_size: 16, local_sizes: [8], local_counts: [2]}
model: {name: swin_micro, patch_size: 2, stages: 2, window_size: 4, drop_path: 0.1}
method: {out_dim: 24, head_hidden_dim: 16, head_bottleneck_dim: 8, ema_momentum: 0.9}
optim: {epochs: 2, batch_size: 8, warmup_epochs: 1, lr: 1e-3}
run: {folder: %s, device: cpu, cpu_threads: 1, log_steps: 1, compile: false}
"""


@pytest.fixture(autouse=True)
def fresh_accelerator_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate keeps its state in the process; every run here starts afresh, with a cache of its own."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take half the time of a tiny run: none are drawn but for tests marked `pictures`."""
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("ssl_lens.recipe.compose.save_views", lambda *views, pictures: None)
        monkeypatch.setattr("ssl_lens.engine.reporter.plot_curves", lambda *metrics, panels, baselines: None)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """24 images of 20 x 20 px in two classes: blobs, and blobs with a hole."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :20] - 9.5
    for kind in ("blob", "ring"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(12):
            radius = np.hypot(x - rng.normal(), y - rng.normal())
            image = np.exp(-(radius**2) / 18) * (1 if kind == "blob" else np.minimum(radius / 3, 1))
            np.save(tmp_path / "images" / kind / f"{i:02d}.npy", image + 0.05 * rng.normal(size=(20, 20)))
    return tmp_path / "images"


@pytest.fixture
def tiny_recipe(tmp_path: Path, image_folder: Path) -> Callable[..., Recipe]:
    """`tiny_recipe(name, *overrides)`: a recipe of 6 steps that writes to a run folder of that name."""

    def make(name: str, *overrides: str) -> Recipe:
        file = tmp_path / f"{name}.yaml"
        file.write_text(TINY % (image_folder, tmp_path / name), encoding="utf-8")
        return load_recipe(file, overrides)

    return make


@pytest.fixture
def stopped_in_step_3(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    """`with stopped_in_step_3(): run(...)`: the run gets a signal in that step, and must end by it."""

    @contextmanager
    def stopped(number: signal.Signals = signal.SIGTERM) -> Iterator["pytest.ExceptionInfo[InterruptedRun]"]:
        report = Reporter.after_step

        def stop_in_step_3(self: Reporter, step: Step) -> None:
            report(self, step)
            if step.number == 3:
                os.kill(os.getpid(), number)

        with monkeypatch.context() as patch:
            patch.setattr(Reporter, "after_step", stop_in_step_3)
            with pytest.raises(InterruptedRun) as stop:
                yield stop

    return stopped


@pytest.fixture
def run(tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretraining]:
    """`run(name, *overrides)`: the same recipe, trained to its end."""

    composed: list[Pretraining] = []
    compose = composing.compose
    monkeypatch.setattr(composing, "compose", lambda *given: (composed.append(compose(*given)), composed[-1])[1])

    def train(name: str, *overrides: str) -> Pretraining:
        composing.pretrain(tiny_recipe(name, *overrides))
        return composed[-1]

    return train
