"""When checkpoints are written, and which one a run continues from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.optim import Optimizer

from ssl_lens.engine.loop import Step
from ssl_lens.errors import InputError
from ssl_lens.methods.method import Method
from ssl_lens.runs import checkpoint
from ssl_lens.runs.folder import RunFolder
from ssl_lens.runs.status import read_status

logger = logging.getLogger(__name__)


class Checkpoints:
    """Saves every `every` steps, after the last one, and before the run stops; the main process writes.

    Args:
        optimizer: as it was made, before Accelerate prepared it.
        observed: what those who look at the run remember, to be kept with it.
        keep: the newest that stay on disk.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Optimizer,
        folder: RunFolder,
        accelerator: Accelerator,
        *,
        observed: Callable[[], Mapping[str, Tensor]],
        every: int,
        keep: int,
        total_steps: int,
    ) -> None:
        self.method, self.optimizer, self.folder, self.accelerator = method, optimizer, folder, accelerator
        self.observed = observed
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
                observed=self.observed(),
                step=step,
                keep=self.keep,
            )
        self.accelerator.wait_for_everyone()


def checkpoint_to_continue(folder: RunFolder, accelerator: Accelerator, *, keep: int) -> Path | None:
    """The newest whole checkpoint; the first process moves damaged ones aside and leaves the `keep` newest. Collective.

    Raises: InputError if there are checkpoints, but none is whole.
    """
    name: list[str | None] = [None]
    if accelerator.is_main_process:
        found = checkpoint.find_checkpoints(folder.checkpoints)
        if found.damaged and not found.whole:
            raise InputError(
                f"no checkpoint in {folder.checkpoints} is whole: {found.described()}; restore one, or set "
                "resume=restart to begin anew"
            )
        if not found.whole and (saved := (read_status(folder.status) or {}).get("step")) is not None:
            raise InputError(
                f"{folder.checkpoints} had a checkpoint of step {saved}, which is gone; restore it, or set "
                "resume=restart to begin anew"
            )
        for path, problem in found.damaged.items():
            logger.warning("%s is damaged (%s): moved to %s", path, problem, checkpoint.move_aside(path).name)
        checkpoint.prune(folder.checkpoints, keep)  # the process before may have been killed between save and removal
        name[0] = found.whole[0].name if found.whole else None
    broadcast_object_list(name)
    return None if name[0] is None else folder.checkpoints / name[0]
