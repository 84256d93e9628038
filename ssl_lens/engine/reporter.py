"""What a run reports while it trains: progress, metrics file, TensorBoard (and wandb), advice, curves."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ssl_lens.engine.curves import plot_curves
from ssl_lens.engine.features import FeatureWindow, feature_statistics
from ssl_lens.engine.loop import Step
from ssl_lens.engine.watch import Shortfall, Watch
from ssl_lens.methods.method import Method
from ssl_lens.runs.folder import RunFolder, writing

logger = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How far a run goes, and how often it is measured; steps are counted from 0."""

    start: int
    total_steps: int
    steps_per_epoch: int
    batch_size: int
    log_steps: int


class Reporter:
    """Every `log_steps` steps, and at the end of an epoch, measures and writes; there the backbone is watched too.

    On a terminal progress is a bar, elsewhere one line per epoch.

    Args:
        watch: measures the backbone, on the main process alone.
        advise: how a piece of the method's advice is worded for the user; advise_on: how a shortfall is.
    """

    def __init__(
        self,
        method: Method,
        folder: RunFolder,
        accelerator: Accelerator,
        pace: Pace,
        watch: Watch,
        *,
        advise: Callable[[str], str],
        advise_on: Callable[[Shortfall], str],
    ) -> None:
        self.method, self.folder, self.accelerator, self.pace = method, folder, accelerator, pace
        self.watch, self.advise, self.advise_on = watch, advise, advise_on
        self.window = FeatureWindow()
        self._advised: set[str] = set()
        self.bar = tqdm(
            total=pace.total_steps,
            initial=pace.start,
            unit="step",
            disable=None if accelerator.is_main_process else True,  # None: only on a terminal
        )
        self._since = time.monotonic(), pace.start

    def observed(self) -> dict[str, torch.Tensor]:
        """What is remembered of the steps before; `remember` makes another reporter go on with it."""
        features = self.window.all()
        return {"features": features} if len(features) else {}

    def remember(self, observed: Mapping[str, torch.Tensor]) -> None:
        """Goes on where the reporter of a stopped run was."""
        if "features" in observed:
            self.window.add(observed["features"])

    def begin(self) -> None:
        """Measures what training begins with, if it has not begun."""
        if self.pace.start == 0 and self.accelerator.is_main_process:
            self.watch.begin(self.method.backbone)

    def after_step(self, step: Step) -> None:
        """A skipped step is not reported."""
        if step.skipped:
            return
        with contextlib.suppress(OSError):  # the terminal is gone; the run need not be
            self.bar.update(step.number + 1 - self.bar.n)
        self.window.add(self.method.features())
        epoch_ends = (step.number + 1) % self.pace.steps_per_epoch == 0
        if not epoch_ends and (step.number + 1) % self.pace.log_steps:
            return
        metrics = self._measure(step)
        if self.accelerator.is_main_process:  # the others wait at their next reduction
            short_before = {each.than for each in self.watch.shortfalls}
            if epoch_ends:
                metrics |= self.watch.after_epoch(self.method.backbone, step.number, metrics["epoch"])
            self._write(step.number, metrics, epoch_ends)
            if epoch_ends:
                lasting = (each for each in self.watch.shortfalls if each.than in short_before)
                self._advise_once(step.number, {each.than: self.advise_on(each) for each in lasting})

    def finish(self) -> None:
        """Draws the curves, says which epoch was the best, and what the features of the last fall short of."""
        with contextlib.suppress(OSError):
            self.bar.close()
        measured = self.folder.metrics.is_file() and self.folder.metrics.stat().st_size > 0
        if not self.accelerator.is_main_process or not measured:
            return
        plot_curves(
            self.folder.metrics,
            self.folder.plots / "curves.png",
            panels=self.method.panels,
            baselines=self.watch.baselines,
        )
        best = self.watch.best
        if best.kept is not None:
            logger.info(
                "the best by %s, %.3f, is of epoch %.3g: %s",
                best.monitor,
                best.kept.worth,
                best.kept.epoch,
                best.folder,
            )
        for shortfall in self.watch.shortfalls:
            logger.warning("after the last epoch %s", self.advise_on(shortfall))

    def _measure(self, step: Step) -> dict[str, float]:
        """Collective: every rank takes part."""
        losses = torch.stack(list(step.losses.values())).detach().float()
        means = self.accelerator.reduce(losses, "mean").tolist()
        named = dict(zip(step.losses, means, strict=True))
        clock, before = time.monotonic(), self._since
        self._since = clock, step.number + 1
        return {
            "epoch": (step.number + 1) / self.pace.steps_per_epoch,
            "loss": named.pop("total"),
            **named,
            **self.method.metrics(step.now.method),
            **feature_statistics(self.window.all()),
            **step.now.numbers(),
            "images_per_s": (step.number + 1 - before[1]) * self.pace.batch_size / max(clock - before[0], 1e-9),
        }

    def _write(self, step: int, metrics: dict[str, float], epoch_ends: bool) -> None:
        self.folder.append(self.folder.metrics, {"step": step, **metrics})
        with writing(self.folder.tensorboard):
            self.accelerator.log(metrics, step=step)
        shown = {"loss": f"{metrics['loss']:.3f}", "images/s": f"{metrics['images_per_s']:.0f}"}
        shown |= {name: f"{value:.3f}" for name, value in metrics.items() if name.startswith("probe_")}
        with contextlib.suppress(OSError):
            self.bar.set_postfix(shown)
        if epoch_ends and self.bar.disable:
            epochs = math.ceil(self.pace.total_steps / self.pace.steps_per_epoch)
            values = ", ".join(f"{name} {value}" for name, value in shown.items())
            logger.info("epoch %d of %d: %s", round(metrics["epoch"]), epochs, values)
        self._advise_once(step, {advice: self.advise(advice) for advice in self.method.advice(metrics)})

    def _advise_once(self, step: int, worded: Mapping[str, str]) -> None:
        """Gives advice, by what it is about, that was not given before."""
        for about, advice in worded.items():
            if about not in self._advised:
                self._advised.add(about)
                logger.warning("step %d: %s", step + 1, advice)
