"""What a run says while it trains: progress bar, metrics file, TensorBoard (and wandb), advice, curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm

from ssl_lens.data.images import ImageSet
from ssl_lens.engine.curves import plot_curves
from ssl_lens.engine.monitors import Advisor, FeatureWindow, OnlineProbe, feature_statistics, teacher_statistics
from ssl_lens.methods.criterion import Criterion, Losses
from ssl_lens.methods.network import Network, Output
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.runs.folder import RunFolder
from ssl_lens.schedules import Hyperparameters

logger = logging.getLogger(__name__)


class Reporter:
    """Every `run.log_steps` steps, measures and writes; at the end of an epoch, runs the online probe."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        accelerator: Accelerator,
        *,
        teacher: Network,
        criterion: Criterion,
        preprocess: nn.Module,
        labelled: ImageSet | None,
        steps_per_epoch: int,
        start: int,
    ) -> None:
        self.recipe, self.folder, self.accelerator = recipe, folder, accelerator
        self.teacher, self.criterion, self.preprocess = teacher, criterion, preprocess
        self.steps_per_epoch = steps_per_epoch
        self.window = FeatureWindow()
        self.advisor = Advisor(recipe.model.out_dim, sinkhorn=recipe.loss.centering == "sinkhorn")
        self.probe = OnlineProbe(labelled, seed=recipe.seed) if labelled else None
        self.bar = tqdm(
            total=recipe.optim.epochs * steps_per_epoch,
            initial=start,
            unit="step",
            disable=None if accelerator.is_main_process else True,
        )
        self._since = time.monotonic(), start
        folder.rewind_metrics(start)
        accelerator.init_trackers(
            recipe.run.wandb_project or "ssl_lens",
            init_kwargs={"wandb": {"config": recipe.model_dump(mode="json"), "dir": str(folder.root)}},
        )

    def after_step(self, step: int, now: Hyperparameters, losses: Losses, targets: Sequence[Output]) -> None:
        """Called on every rank after every finished step; `targets` are the teacher's outputs of its micro-batches."""
        self.bar.update(step + 1 - self.bar.n)  # a skipped step is not reported
        for target in targets:
            self.window.add(target.view_features)
        epoch_ends = (step + 1) % self.steps_per_epoch == 0
        if epoch_ends or (step + 1) % self.recipe.run.log_steps == 0:
            metrics = self._measure(step, now, losses, targets)
            if epoch_ends and self.probe:
                metrics |= self._probe()
            if self.accelerator.is_main_process:
                self._write(step, metrics)

    def finish(self) -> None:
        """Draws the curves of what was measured."""
        self.bar.close()
        measured = self.folder.metrics.is_file() and self.folder.metrics.stat().st_size > 0
        if self.accelerator.is_main_process and measured:
            plot_curves(self.folder.metrics, self.folder.plots / "curves.png", out_dim=self.recipe.model.out_dim)

    def _measure(self, step: int, now: Hyperparameters, losses: Losses, targets: Sequence[Output]) -> dict[str, float]:
        """Collective: every rank takes part."""
        present = {"loss": losses.total, "view_loss": losses.view, "region_loss": losses.region}
        present = {name: value for name, value in present.items() if value is not None}
        means = self.accelerator.reduce(torch.stack(list(present.values())).detach().float(), "mean").tolist()
        logits = torch.cat([target.view_logits for target in targets], dim=1)
        probabilities = self.criterion.view_loss.centering.targets(logits, now.teacher_temp)
        clock, before = time.monotonic(), self._since
        self._since = clock, step + 1
        return {
            "epoch": (step + 1) / self.steps_per_epoch,
            **dict(zip(present, means, strict=True)),
            **teacher_statistics(probabilities),
            **feature_statistics(self.window.all()),
            **{name: float(value) for name, value in now._asdict().items()},
            "images_per_s": (step + 1 - before[1]) * self.recipe.optim.batch_size / max(clock - before[0], 1e-9),
        }

    def _probe(self) -> dict[str, float]:
        """Measured by the main process alone; the others wait at their next reduction."""
        if not self.accelerator.is_main_process:
            return {}
        return self.probe.measure(self.preprocess, self.teacher.backbone)

    def _write(self, step: int, metrics: dict[str, float]) -> None:
        self.folder.append(self.folder.metrics, {"step": step, **metrics})
        self.accelerator.log(metrics, step=step)
        shown = {"loss": f"{metrics['loss']:.3f}", "images/s": f"{metrics['images_per_s']:.0f}"}
        if "probe_knn" in metrics:
            shown["kNN"] = f"{metrics['probe_knn']:.3f}"
        self.bar.set_postfix(shown)
        for advice in self.advisor.advise(metrics):
            logger.warning("step %d: %s", step + 1, advice)
