"""The pretraining loop, and what is put together before it."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from joblib import cpu_count
from torch import nn

from ssl_lens.data.batches import Plan
from ssl_lens.data.pixels.preprocess import pixel_range
from ssl_lens.engine.finite import RunningStatistics, all_finite, any_rank
from ssl_lens.engine.reporter import Reporter
from ssl_lens.errors import InputError, arguments_named
from ssl_lens.methods.criterion import Losses
from ssl_lens.methods.network import Output
from ssl_lens.methods.student_teacher import make_teacher, update_teacher
from ssl_lens.optim import adamw, clip_per_tensor, freeze_last_layer, set_hyperparameters
from ssl_lens.recipe import compose
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.recipe import Recipe, resolve_auto
from ssl_lens.runs import checkpoint
from ssl_lens.runs.checkpoint import Trainable
from ssl_lens.runs.folder import RunFolder
from ssl_lens.schedules import Hyperparameters
from ssl_lens.views.multicrop import Views
from ssl_lens.views.picture import save_views

logger = logging.getLogger(__name__)

MAX_SKIPS_IN_A_ROW = 3
SHOWN_IMAGES = 6  # in the picture of the views
NAMED_IMAGES = 8  # of a skipped step, on the console; its file has all


class InterruptedRun(Exception):  # noqa: N818, an order obeyed, not an error
    """The run was asked to stop, and has saved."""

    def __init__(self, folder: Path, step: int, signal_number: int) -> None:
        super().__init__(f"stopped after step {step}; the same command with run.resume=auto goes on from {folder}")
        self.exit_status = 128 + signal_number


class Pretraining:
    """One run: everything that a recipe names, built once, and the loop over it.

    Source: the order within a step is that of train_one_epoch in DINO and EsViT. Differs: a step whose loss or
    gradients are not finite on any rank changes nothing on all of them; the centre moves after the optimiser's step
    (the loss has read the old centre either way).

    Raises: InputError for whatever in the recipe or the data cannot work, before the first step.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.folder = RunFolder(recipe.run.folder)
        self.folder.refuse_existing(resume=recipe.run.resume == "auto")
        self.accelerator = Accelerator(
            cpu=recipe.run.device == "cpu",
            mixed_precision=recipe.optim.precision,
            log_with=["tensorboard", "wandb"] if recipe.run.wandb_project else "tensorboard",
            project_dir=self.folder.root / "tensorboard",
        )
        self.device = self.accelerator.device
        if self.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
            torch.set_num_threads(recipe.run.cpu_threads or max(1, cpu_count() // self.accelerator.num_processes))
        with self.accelerator.main_process_first():  # the others find the cache filled
            images = recipe_images.image_source(recipe, quarantine=self.folder.quarantine)
            raw = images.sample()
            labelled = recipe_images.labelled_set(recipe, raw.shape[2:])
        self.names = images.names
        self.preprocess = recipe_images.preprocess(recipe, raw, images.policy).to(self.device)
        self.pixel_range = pixel_range(self.preprocess, raw)
        shape = raw.shape[1:]
        del raw  # of shards, a copy
        optim = recipe.optim
        ranks = self.accelerator.process_index, self.accelerator.num_processes
        with arguments_named({"batch_size": "optim.batch_size", "accumulate": "optim.accumulate"}):
            self.batches = images.batches(Plan(optim.batch_size, optim.accumulate, recipe.seed, *ranks), self.device)
        self.recipe, choices = resolve_auto(recipe, n_images=len(images), in_channels=shape[0])
        self._build()
        size = self.preprocess.output_size(*shape[1:])
        choices += compose.check_sizes(self.recipe, self.trainable.student.backbone, *size)
        if self.accelerator.is_main_process:
            self.folder.write_head(self.recipe, self.preprocess.config(), {"shape": list(shape)} | images.listing())
            for choice in choices:
                logger.info(choice)
        self.start = self._resume()
        self.reporter = Reporter(
            self.recipe,
            self.folder,
            self.accelerator,
            teacher=self.teacher,
            criterion=self.criterion,
            preprocess=self.preprocess,
            labelled=labelled,
            steps_per_epoch=self.batches.steps_per_epoch,
            start=self.start,
        )

    def _build(self) -> None:
        torch.manual_seed(self.recipe.seed)
        student = compose.network(self.recipe).to(memory_format=torch.channels_last)  # convolutions: 15 % faster
        teacher = make_teacher(student)
        if self.accelerator.num_processes > 1 and self.device.type == "cuda":
            student = nn.SyncBatchNorm.convert_sync_batchnorm(student)
            teacher = nn.SyncBatchNorm.convert_sync_batchnorm(teacher)
        self.teacher = teacher.to(self.device)
        self.criterion = compose.criterion(self.recipe).to(self.device)
        self.multicrop = compose.multicrop(self.recipe, self.pixel_range)
        self.schedules = compose.schedules(self.recipe, self.batches.steps_per_epoch)
        optimizer = adamw(student.to(self.device))
        self.trainable = Trainable(student, self.teacher, self.criterion, optimizer, self.accelerator.scaler)
        self.student, self.optimizer = self.accelerator.prepare(student, optimizer)
        self.statistics = RunningStatistics(student, self.teacher)

    def run(self) -> Path:
        """Trains to the last step; returns the run's folder.

        Raises: InterruptedRun after SIGINT or SIGTERM; InputError after the third step in a row that is not finite.
        """
        recipe, schedules, skips_in_a_row = self.recipe, self.schedules, 0
        save_steps = self.batches.steps_per_epoch * recipe.run.checkpoint_epochs
        if self.start == 0 and self.accelerator.is_main_process:
            self._draw_views()
        with StopSignals() as stop:
            for step in range(self.start, schedules.total_steps):
                now = schedules.at(step)
                set_hyperparameters(self.optimizer, now)
                self.statistics.remember()
                losses, targets = self._forward_backward(step, now)
                self.accelerator.unscale_gradients(self.optimizer)
                norms = clip_per_tensor(self.student.parameters(), recipe.optim.clip_norm or math.inf)
                skip, stopping = any_rank((not all_finite(losses.total, norms), stop.requested), self.device)
                if skip:  # nobody steps, nobody updates
                    skips_in_a_row = self._skip(step, losses, skips_in_a_row)
                else:
                    skips_in_a_row = 0
                    if now.freeze_last_layer:
                        freeze_last_layer(self.student)
                    self.optimizer.step()
                    self.criterion.update_center(targets)
                    update_teacher(self.teacher, self.trainable.student, now.ema_momentum)
                    self.reporter.after_step(step, now, losses, targets)
                self.optimizer.zero_grad()
                if stopping or (step + 1) % save_steps == 0 or step + 1 == schedules.total_steps:
                    self._save(step + 1)
                if stopping:
                    self._close()
                    raise InterruptedRun(self.folder.root, step + 1, stop.number)
        self._close()
        return self.folder.root

    def _close(self) -> None:
        """Draws the curves, ends trackers and process group: on all ranks at once, and after DDP, which holds it."""
        self.reporter.finish()
        self.batches.close()
        self.student = self.trainable.student
        self.accelerator.free_memory()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _forward_backward(self, step: int, now: Hyperparameters) -> tuple[Losses, list[Output]]:
        """Accumulates gradients over this rank's micro-batches; returns their mean losses and the teacher's outputs."""
        ranks = self.accelerator.num_processes
        torch.manual_seed((self.recipe.seed << 32) + step * ranks + self.accelerator.process_index)  # for drop path
        accumulate, sums, targets = self.recipe.optim.accumulate, [], []
        for i, views in enumerate(self._views(step)):
            last = i + 1 == accumulate
            with nullcontext() if last else self.accelerator.no_sync(self.student):
                with torch.no_grad(), self.accelerator.autocast():
                    targets.append(self.teacher([views.global_crops]))
                student = self.student([views.global_crops, *views.local_crops])
                losses = self.criterion(student, targets[-1], teacher_temp=now.teacher_temp)
                self.accelerator.backward(losses.total / accumulate)
            sums.append([None if loss is None else loss.detach() for loss in losses])
        means = [None if None in parts else torch.stack(parts).mean() for parts in zip(*sums, strict=True)]
        return Losses(*means), targets

    def _draw_views(self) -> None:
        raw, index = (part[:SHOWN_IMAGES] for part in self.batches.at(0)[0])
        images = self.preprocess(raw)
        views = self.multicrop(images, index, seed=self.recipe.seed, epoch=0)
        save_views(views, self.folder.plots / "views.png", images)

    def _views(self, step: int) -> Iterator[Views]:
        """This rank's micro-batches of a step, cropped on the device."""
        epoch = step // self.batches.steps_per_epoch
        for raw, index in self.batches.at(step):
            yield self.multicrop(self.preprocess(raw), index, seed=self.recipe.seed, epoch=epoch)

    def _skip(self, step: int, losses: Losses, skips_in_a_row: int) -> int:
        """Undoes what the forward passes of a step left behind, names its images, and stops the run at the third."""
        self.statistics.restore()
        if self.accelerator.scaler:  # fp16: the scaler skips by itself, and lowers its scale
            self.optimizer.step()
            if not any_rank([not all_finite(losses.total)], self.device)[0]:
                return skips_in_a_row  # only the scaled gradients overflowed: part of fp16's ordinary life
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
        if skips_in_a_row + 1 == MAX_SKIPS_IN_A_ROW:
            self._save(step + 1)
            raise InputError(
                f"steps {step - 1} to {step + 1} were not finite, nothing of them was kept; look at the images in "
                f"{self.folder.skipped_steps}, then start a new run without them, with a lower optim.lr or another "
                "optim.precision"
            )
        return skips_in_a_row + 1

    @torch.no_grad()
    def _unfit_images(self, step: int) -> list[int]:
        """Indices of the images, over all ranks, whose own output is not finite; all of the step if none stands out."""
        student = self.trainable.student.eval()  # or batch norm would spread the image's NaN over the batch
        everyone, unfit = [], []
        for (_, index), views in zip(self.batches.at(step), self._views(step), strict=True):
            with self.accelerator.autocast():
                logits = student([views.global_crops, *views.local_crops]).view_logits
            everyone.append(index)
            unfit.append(index[~logits.isfinite().all(dim=2).all(dim=0)])
        student.train()
        everyone, unfit = (sorted(gather_object(torch.cat(parts).tolist())) for parts in (everyone, unfit))
        return unfit or everyone

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            checkpoint.save(self.folder.checkpoints, self.trainable, step=step, keep=self.recipe.run.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """The step to start with: 0, or after the newest checkpoint that is whole."""
        newest = checkpoint.newest_good(self.folder.checkpoints)
        if newest is None:
            return 0
        step = checkpoint.load(newest, self.trainable)
        logger.info("resuming after step %d of %d from %s", step, self.schedules.total_steps, newest)
        return step


class StopSignals:
    """While entered, SIGINT and SIGTERM are noted instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.requested = False
        self.number = 0

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.__exit__()
            raise KeyboardInterrupt
        self.requested, self.number = True, number
        logger.warning("%s: finishing this step, then saving", signal.Signals(number).name)
