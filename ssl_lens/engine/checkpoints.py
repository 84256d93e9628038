"""When checkpoints are written."""

from __future__ import annotations

from accelerate import Accelerator
from torch.optim import Optimizer

from ssl_lens.engine.loop import Step
from ssl_lens.methods.method import Method
from ssl_lens.runs import checkpoint
from ssl_lens.runs.folder import RunFolder


class Checkpoints:
    """Saves every `every` steps, after the last one, and before the run stops; the main process writes.

    Args:
        keep: the newest that stay on disk.
        optimizer: as it was made, before Accelerate prepared it.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        folder: RunFolder,
        accelerator: Accelerator,
        *,
        every: int,
        keep: int,
        total_steps: int,
    ) -> None:
        self.method, self.optimizer, self.folder, self.accelerator = method, optimizer, folder, accelerator
        self.every, self.keep, self.total_steps = every, keep, total_steps

    def after_step(self, step: Step) -> None:
        """Saves if it is time."""
        done = step.number + 1
        if step.stopping or done % self.every == 0 or done == self.total_steps:
            self.save(done)

    def save(self, step: int) -> None:
        """Writes a checkpoint after `step` steps; called on every rank."""
        if self.accelerator.is_main_process:
            checkpoint.save(
                self.folder.checkpoints,
                self.method,
                self.optimizer,
                self.accelerator.scaler,
                backbone=self.method.backbone,
                step=step,
                keep=self.keep,
            )
        self.accelerator.wait_for_everyone()
