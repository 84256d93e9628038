"""What becomes of steps that are not finite: their images are named, and too many end the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ssl_lens.engine.checkpoints import Checkpoints
from ssl_lens.engine.loop import Step
from ssl_lens.errors import InputError
from ssl_lens.methods.method import Method
from ssl_lens.runs.folder import RunFolder, records
from ssl_lens.views.multicrop import Views

logger = logging.getLogger(__name__)

MAX_SKIPS_IN_A_ROW = 3
MAX_SKIPS, AMONG = 10, 100  # steps: of so many, more than these end a run
NAMED_IMAGES = 8  # of a skipped step, on the console; its file has all


class SkippedSteps:
    """Names the images of every skipped step; at the third in a row, or the eleventh of 100, saves and stops the run.

    The steps are counted from the run's file of them, so that a resumed run goes on counting.

    Args:
        views_at, indices_at: views and image indices [b] of a step's micro-batches on this rank.
        names: of all images.
    """

    def __init__(
        self,
        method: Method,
        folder: RunFolder,
        accelerator: Accelerator,
        checkpoints: Checkpoints,
        *,
        views_at: Callable[[int], Iterable[Views]],
        indices_at: Callable[[int], Iterable[Tensor]],
        names: Sequence[str],
    ) -> None:
        self.method, self.folder, self.accelerator, self.checkpoints = method, folder, accelerator, checkpoints
        self.views_at, self.indices_at, self.names = views_at, indices_at, names
        self.skipped = [record["step"] for record in records(folder.skipped_steps)]

    def after_step(self, step: Step) -> None:
        """Raises: InputError at the third skipped step in a row, or the eleventh of 100."""
        if not step.skipped or step.overflow:
            return
        self.skipped = [*(number for number in self.skipped if number > step.number - AMONG), step.number]
        self._report(step.number)
        newest = self.skipped[-MAX_SKIPS_IN_A_ROW:]
        in_a_row = len(newest) == MAX_SKIPS_IN_A_ROW == step.number - newest[0] + 1
        if in_a_row or len(self.skipped) > MAX_SKIPS:
            self.checkpoints.save(step.number + 1)
            which = (
                f"steps {step.number - 1} to {step.number + 1} were"
                if in_a_row
                else f"{len(self.skipped)} of the last {AMONG} steps, up to {step.number + 1}, were"
            )
            raise InputError(
                f"{which} not finite, nothing of them was kept; look at the images in {self.folder.skipped_steps}, "
                "then start a new run without them, with a lower learning rate or another precision"
            )

    def _report(self, step: int) -> None:
        images = [self.names[i] for i in self._unfit_images(step)]
        if self.accelerator.is_main_process:
            self.folder.append(self.folder.skipped_steps, {"step": step, "images": images})
            more = f" and {len(images) - NAMED_IMAGES} more" if len(images) > NAMED_IMAGES else ""
            logger.warning(
                "step %d skipped: loss or gradients are not finite; images: %s%s",
                step + 1,
                ", ".join(images[:NAMED_IMAGES]),
                more,
            )

    def _unfit_images(self, step: int) -> list[int]:
        """Indices of the images, over all ranks, whose own output is not finite; all of the step if none stands out."""
        everyone, unfit = [], []
        for index, views in zip(self.indices_at(step), self.views_at(step), strict=True):
            with self.accelerator.autocast():
                finite = self.method.finite_images(views)
            everyone.append(index)
            unfit.append(index[~finite.cpu()])
        everyone_of_all, unfit_of_all = (
            sorted(gather_object(torch.cat(parts).tolist())) for parts in (everyone, unfit)
        )
        return unfit_of_all or everyone_of_all
