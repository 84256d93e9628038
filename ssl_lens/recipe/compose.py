"""A recipe becomes the parts of a run, once; networks' names are known to `backbones.catalog`, methods' to theirs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lens.backbones.catalog import backbone_config
from ssl_lens.data.array_batches import ArrayBatches
from ssl_lens.data.batches import Batches, Plan
from ssl_lens.data.formats.reader import is_picture
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.source import ImageSource
from ssl_lens.engine.checkpoints import Checkpoints, checkpoint_to_continue
from ssl_lens.engine.loop import Observer, train
from ssl_lens.engine.processes import join_processes
from ssl_lens.engine.reporter import Pace, Reporter
from ssl_lens.engine.schedule import Schedule
from ssl_lens.engine.session import session
from ssl_lens.engine.signals import InterruptedRun, StopSignals
from ssl_lens.engine.skips import SkippedSteps
from ssl_lens.engine.watch import Watch
from ssl_lens.errors import InputError, arguments_named, renamed
from ssl_lens.launcher import first_rank_first
from ssl_lens.methods.method import Method
from ssl_lens.optim import adamw
from ssl_lens.recipe.advice import advice_on
from ssl_lens.recipe.images import images_folder, refuse_folder_of_images
from ssl_lens.recipe.monitors import watch_of
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.recipe.resume import (
    changes,
    recorded_recipe,
    recorded_threads,
    refuse_another_recipe,
    refuse_shorter,
    with_choices_of,
)
from ssl_lens.recipe.start import OPTIM_KEYS, open_images, start
from ssl_lens.runs import checkpoint
from ssl_lens.runs.environment import environment
from ssl_lens.runs.folder import RunFolder
from ssl_lens.runs.section import Run
from ssl_lens.views.multicrop import MultiCrop, Views, views_of_features
from ssl_lens.views.picture import save_views

logger = logging.getLogger(__name__)

RUN_KEYS = {name: f"run.{name}" for name in Run.model_fields}
SHOWN_IMAGES = 6  # in the picture of the views


@dataclass
class Pretraining:
    """The parts of one run, put together and ready to train.

    Attributes:
        recipe: with every `auto` resolved.
        names: of all images.
        batches: of raw images.
        features: batches of what the fixed part of the network says of each image, if no view differs from its image.
        preprocess: of the images that views are made of.
        start: the step to begin with.
    """

    recipe: Recipe
    folder: RunFolder
    accelerator: Accelerator
    names: Sequence[str]
    batches: Batches
    features: Batches | None
    preprocess: Preprocess
    multicrop: MultiCrop
    method: Method
    optimizer: Optimizer
    schedule: Schedule
    start: int
    stop: StopSignals
    reporter: Reporter
    observers: list[Observer] = field(default_factory=list)

    def views_at(self, step: int) -> Iterator[Views]:
        """This rank's micro-batches of a step, cropped on the device."""
        epoch = step // self.schedule.steps_per_epoch
        if self.features is not None:
            yield from (views_of_features(features, epoch) for features, _ in self.features.at(step))
            return
        for raw, index in self.batches.at(step):
            yield self.multicrop(self._linear(raw), index, seed=self.recipe.seed, epoch=epoch)

    def indices_at(self, step: int) -> list[Tensor]:
        """Indices [b] of the images in this rank's micro-batches of a step."""
        return [index for _, index in (self.features or self.batches).at(step)]

    def _linear(self, raw: Tensor) -> Tensor:
        """Raw images [b, C, H, W], or renderings [b, k, C, H, W], as views are made of them."""
        return self.preprocess.linear(raw.flatten(0, -4)).unflatten(0, raw.shape[:-3])

    def run(self) -> Path:
        """Trains to the last step; returns the run's folder.

        Raises: InterruptedRun after a signal; InputError after too many steps that are not finite, or for lack of room.
        """
        with self.stop.noted():
            if self.start == 0 and self.accelerator.is_main_process:
                self._draw_views()
            self.reporter.begin()
            done = self.train()
            self._close()
        if done < self.schedule.total_steps:
            raise InterruptedRun(
                f"stopped after step {done}; the same command with run.resume=auto goes on from {self.folder.root}",
                self.stop.number,
            )
        return self.folder.root

    def train(self) -> int:
        """The loop over the steps alone; returns how many are done."""
        optim = self.recipe.optim
        return train(
            self.method,
            self.optimizer,
            self.views_at,
            self.schedule,
            self.accelerator,
            start=self.start,
            seed=self.recipe.seed,
            accumulate=optim.accumulate,
            clip_norm=optim.clip_norm,
            observers=self.observers,
            stop=self.stop,
        )

    def _close(self) -> None:
        """Draws the curves, ends trackers and process group: on all ranks at once, and after DDP, which holds it."""
        self.reporter.finish()
        self.batches.close()
        self.accelerator.free_memory()
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()

    def _draw_views(self) -> None:
        raw, index = (part[:SHOWN_IMAGES] for part in self.batches.at(0)[0])
        images = self._linear(raw)
        views = self.multicrop(images, index, seed=self.recipe.seed, epoch=0)
        pictures = [is_picture(self.names[i], images_folder(self.recipe)) for i in index.tolist()]
        first = self.preprocess.stretched(images if images.ndim == 4 else images[:, 0])
        save_views(views, self.folder.plots / "views.png", self.multicrop.within(first), pictures=pictures)


@arguments_named(RUN_KEYS)
def pretrain(recipe: Recipe) -> Path:
    """Runs a recipe; returns the run's folder.

    Raises: InputError for whatever in the recipe or the data cannot work, before the first step; as `Pretraining.run`.
    """
    refuse_folder_of_images(recipe)  # before anything is written there
    with StopSignals() as stop, session(RunFolder(recipe.run.folder), recipe.run.resume):
        return compose(recipe, stop).run()


@arguments_named(RUN_KEYS)
def compose(recipe: Recipe, stop: StopSignals | None = None) -> Pretraining:
    """Everything that a recipe names, built once; a run in its folder is continued.

    Raises: InputError for whatever in the recipe or the data cannot work.
    """
    if recipe.run.wandb_project and find_spec("wandb") is None:
        raise InputError(
            f"run.wandb_project={recipe.run.wandb_project} needs wandb; pip install 'ssl_lens[wandb]' or set it to null"
        )
    folder = RunFolder(recipe.run.folder)
    accelerator = join_processes(
        cpu=recipe.run.device == "cpu",
        precision=recipe.optim.precision,
        cpu_threads=recipe.run.cpu_threads or recorded_threads(folder),
        rank_timeout_s=recipe.run.rank_timeout_s,
        trackers=["tensorboard", "wandb"] if recipe.run.wandb_project else ["tensorboard"],
        tracker_folder=folder.tensorboard,
    )
    with first_rank_first("images"):  # the others find the cache filled
        opened = open_images(recipe, quarantine=folder.quarantine)
    newest = checkpoint_to_continue(folder, accelerator, keep=recipe.run.keep_checkpoints)
    before = recorded_recipe(folder)
    ready = start(
        with_choices_of(before, recipe),
        opened,
        device=accelerator.device,
        processes=accelerator.num_processes,
        resuming=newest is not None,
    )
    recipe, images, choices = ready.recipe, opened.images, list(ready.choices)
    del opened  # of shards, its sample is a copy
    refuse_another_recipe(folder.root, before, recipe)
    plan = _plan(recipe, accelerator)
    batches, features = _batches(images, plan, accelerator), None
    if ready.features is not None:
        features = ArrayBatches(ready.features, plan, accelerator.device, images.renderings)
    network = {"seed": recipe.seed, "backbone": backbone_config(ready.trunk), "pooling": recipe.features.pooling}
    method, optimizer = _on_device(ready.method, accelerator)
    schedule = schedule_of(recipe, method, batches.steps_per_epoch)
    restored = checkpoint.Restored(0, {})
    if newest is not None:
        restored = checkpoint.load(newest, method, optimizer, accelerator.scaler)
    if accelerator.is_main_process:
        listing = {"shape": list(images.shape)} | images.listing()
        folder.refuse_other_images(listing)
        surroundings = environment(accelerator.num_processes)
        refuse_shorter(schedule, restored.step, recipe.optim.epochs)
        if newest is not None:
            logger.info("resuming after step %d of %d from %s", restored.step, schedule.total_steps, newest)
            schedule_at = partial(schedule_of, method=method, steps_per_epoch=batches.steps_per_epoch)
            choices += changes(folder, before, recipe, restored.step, schedule_at, surroundings["arithmetic"])
        folder.write_head(
            recipe.to_yaml(),
            backbone=network,
            preprocess=ready.frozen.config(),
            images=listing,
            environment=surroundings,
        )
        folder.rewind(restored.step)
        for choice in choices:
            logger.info(choice)
    watch = watch_of(recipe, folder, ready.probe, ready.sample, ready.frozen, images.shape)
    pretraining = Pretraining(
        recipe, folder, accelerator, images.names, batches, features, ready.preprocess, ready.multicrop, method,
        optimizer, schedule, restored.step, stop or StopSignals(),
        _reporter(recipe, folder, accelerator, method, schedule, restored.step, watch),
    )  # fmt: skip
    pretraining.reporter.remember(restored.observed)
    accelerator.wait_for_everyone()  # the files of steps to come are cut before anybody reads them
    pretraining.observers = _observers(pretraining)
    return pretraining


def _plan(recipe: Recipe, accelerator: Accelerator) -> Plan:
    optim = recipe.optim
    return Plan(
        optim.batch_size, optim.accumulate, recipe.seed, accelerator.process_index, accelerator.num_processes
    )  # fmt: skip


@arguments_named(OPTIM_KEYS)
def _batches(images: ImageSource, plan: Plan, accelerator: Accelerator) -> Batches:
    return images.batches(plan, accelerator.device)


def _on_device(method: Method, accelerator: Accelerator) -> tuple[Method, Optimizer]:
    method = method.to(memory_format=torch.channels_last)  # convolutions: 15 % faster
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method = method.to(accelerator.device)
    return method, adamw(method.trained)


def schedule_of(recipe: Recipe, method: Method, steps_per_epoch: int) -> Schedule:
    """The schedule of a recipe whose `auto` values are resolved."""
    optim = recipe.optim
    assert optim.lr != "auto", "resolve auto values first"
    return Schedule(
        epochs=optim.epochs,
        steps_per_epoch=steps_per_epoch,
        lr=optim.lr,
        final_lr=optim.min_lr,
        lr_warmup_epochs=optim.warmup_epochs,
        weight_decay=optim.weight_decay,
        final_weight_decay=optim.weight_decay_end,
        method=method.schedule(optim.epochs, steps_per_epoch),
    )


def _reporter(
    recipe: Recipe,
    folder: RunFolder,
    accelerator: Accelerator,
    method: Method,
    schedule: Schedule,
    start: int,
    watch: Watch,
) -> Reporter:
    accelerator.init_trackers(
        recipe.run.wandb_project or "ssl_lens",
        init_kwargs={"wandb": {"config": recipe.model_dump(mode="json"), "dir": str(folder.root)}},
    )
    pace = Pace(
        start, schedule.total_steps, schedule.steps_per_epoch, recipe.optim.batch_size, recipe.run.log_steps
    )  # fmt: skip
    keys = OPTIM_KEYS | {name: f"method.{name}" for name in method.Options.model_fields}
    return Reporter(
        method,
        folder,
        accelerator,
        pace,
        watch,
        advise=lambda advice: renamed(advice, keys),
        advise_on=lambda shortfall: advice_on(shortfall, recipe),
    )


def _observers(run: Pretraining) -> list[Observer]:
    checkpoints = Checkpoints(
        run.method,
        run.optimizer,
        run.folder,
        run.accelerator,
        observed=run.reporter.observed,
        every=run.schedule.steps_per_epoch * run.recipe.run.checkpoint_epochs,
        keep=run.recipe.run.keep_checkpoints,
        total_steps=run.schedule.total_steps,
    )
    skipped = SkippedSteps(
        run.method,
        run.folder,
        run.accelerator,
        checkpoints,
        views_at=run.views_at,
        indices_at=run.indices_at,
        names=run.names,
    )
    return [run.reporter, skipped, checkpoints]
