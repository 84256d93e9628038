"""Training a network on labelled images, on any number of processes."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from joblib import cpu_count
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from ssl_lens.errors import InputError
from ssl_lens.evaluation.augment import Augmentation, augment
from ssl_lens.evaluation.probes.objective import Objective
from ssl_lens.evaluation.probes.probe import Epoch
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.schedules import cosine

Network = TypeVar("Network", bound=nn.Module)

logger = logging.getLogger(__name__)

WARMUP = 0.1  # of the steps
SECONDS_BETWEEN_LINES = 30.0  # at least, where there is no terminal for a progress bar
MEMORY = 0.1  # of the steps, over which the weights are averaged


@dataclass(frozen=True)
class Settings:
    """How a network is trained; batch_size counts images over all processes.

    Attributes:
        pooling: of the features; None: a trained backbone's own, from scratch the view.
        epochs: length of the cosine schedule; None for about 500 steps in 5 to 20 epochs from a probe, 3,000 in 10 to
            100 from scratch.
        lr: highest learning rate; None for 5e-4 from scratch, 1e-4 from a probe.
        patience: from scratch, stop after this many epochs without a lower validation loss.
        augmentation: None for continuous from scratch and right-angle from a probe, whose features resampled images
            would change at once, where classes are learned; for numbers none, as only you know which number, such as a
            mass, stays when the image is turned.
        bf16: train under bfloat16 autocast; losses and predictions stay in float32.
    """

    pooling: Pooling | None = None
    epochs: int | None = None
    batch_size: int = 64
    lr: float | None = None
    weight_decay: float = 0.05
    clip_norm: float = 3.0
    patience: int = 20
    augmentation: Augmentation | None = None
    bf16: bool = False


@dataclass
class _Step:
    """What one step of a training needs, and changes.

    Attributes:
        parallel: the network as Accelerate wraps it.
        mean: the network whose weights are the mean over the last steps; None: it is not needed.
        generator: of batches and augmentation.
    """

    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    network: nn.Module
    mean: nn.Module | None
    pull: float
    generator: torch.Generator

    @torch.no_grad()
    def average(self) -> None:
        """Draws the mean towards the weights."""
        if self.mean is not None:
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.network.parameters()), self.pull)


class Trainer:
    """Trains networks and applies them, with one set of settings, on all processes at once.

    The images of a step do not depend on the number of processes, of which each takes an equal share. With batch norm,
    GPUs share the statistics of a step; processors normalise their own shares and average the running statistics.

    Attributes:
        augmentation: of images, in training.
        speaks: whether this process is the one that prints and writes.
    """

    def __init__(self, accelerator: Accelerator, settings: Settings) -> None:
        self.accelerator, self.settings = accelerator, settings
        self.augmentation: Augmentation = settings.augmentation or "continuous"
        self.device = accelerator.device
        self.speaks = accelerator.is_main_process

    def epochs(
        self,
        network: Network,
        groups: list[dict[str, Any]],
        inputs: Tensor,
        goal: Objective,
        fit: np.ndarray,
        *,
        count: int,
        lr: float,
        seed: int,
        averaged: bool = False,
    ) -> Iterator[tuple[Epoch, Network]]:
        """Trains, and gives the network after every epoch, until the last or until no more are asked for.

        Args:
            network: on the device of the trainer; is changed, and given. If `averaged`, another one is given, with the
                mean of its weights over the last steps (EMA).
            groups: its parameters, as for an optimiser; the learning rate of each is multiplied by its `rate`.
            inputs: preprocessed images [N, C, h, w], or what the network takes in their place, on any device.
            fit: which of them are trained on.
            count: of epochs.
            lr: the highest learning rate.
            seed: decides batches, augmentation and drop path.

        Raises: InputError if the loss is not finite.
        """
        accelerator = self.accelerator
        given = copy.deepcopy(network).eval() if averaged else network
        if accelerator.num_processes > 1 and self.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, fused=self.device.type in ("cpu", "cuda"))
        parallel, optimizer = accelerator.prepare(network, optimizer)
        torch.manual_seed(seed + accelerator.process_index)  # drop path: other images, other masks
        learning_rates = _learning_rates(lr, count, math.ceil(len(fit) / self.settings.batch_size))
        pull = 1 / max(1.0, MEMORY * learning_rates.size)
        generator = torch.Generator().manual_seed(seed)
        step = _Step(parallel, optimizer, network, given if averaged else None, pull, generator)
        spoken = time.monotonic()
        quiet = None if self.speaks else True
        bar = tqdm(learning_rates, f"seed {seed}", unit="epoch", leave=False, disable=quiet)
        try:
            for epoch, rates in enumerate(bar, 1):
                loss = self._epoch(step, inputs, goal, fit, rates)
                if not math.isfinite(loss):
                    raise InputError(f"the loss became {loss} in epoch {epoch}; lower lr={lr:g}")
                bar.set_postfix(loss=loss)
                if bar.disable and self.speaks and time.monotonic() - spoken > SECONDS_BETWEEN_LINES:
                    spoken = time.monotonic()
                    logger.info("seed %d, epoch %d of %d: loss %.4g", seed, epoch, len(learning_rates), loss)
                yield Epoch(epoch, float(rates[-1]), loss, None), given
        finally:
            bar.close()
            accelerator.free_memory()

    def number_of_epochs(self, images: int, *, steps: int, fewest: int, most: int) -> int:
        """What the settings say, else about so many steps, within limits."""
        steps_per_epoch = math.ceil(images / self.settings.batch_size)
        return self.settings.epochs or min(max(steps // steps_per_epoch, fewest), most)

    @torch.inference_mode()
    def applied(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What a function gives float32 [M, O] of inputs [M, ...].

        Every process computes a share and gets all.
        """
        outputs = []
        for part in self._share(len(inputs))[0].split(4 * self.settings.batch_size):
            outputs.append(function(inputs[part.to(inputs.device)].to(self.device)).float())
        return self.accelerator.gather(torch.cat(outputs))[: len(inputs)]

    def predict(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Outputs float32 [M, O] of a network in evaluation mode."""
        return self.applied(network.eval(), inputs)

    def judged(self, network: nn.Module, inputs: Tensor, goal: Objective, index: np.ndarray) -> np.ndarray:
        """The loss and the error of each input at `index` in evaluation mode, [2, n], the same on every process."""
        chosen = torch.from_numpy(index)
        outputs = self.predict(network, inputs[chosen.to(inputs.device)])
        targets = goal.targets[chosen].to(self.device)
        return torch.stack([goal.loss(outputs, targets), goal.error(outputs, targets)]).double().cpu().numpy()

    def _epoch(
        self, step: _Step, inputs: Tensor, goal: Objective, fit: np.ndarray, learning_rates: np.ndarray
    ) -> float:
        """One pass over the images to fit, in as many batches of about equal size as there are learning rates.

        Returns: the mean loss, the same on every process.
        """
        step.parallel.train()
        index = torch.from_numpy(fit)
        order = index[torch.randperm(len(index), generator=step.generator)]
        total = torch.zeros((), device=self.device)
        for batch, lr in zip(order.tensor_split(len(learning_rates)), learning_rates, strict=True):
            draws = torch.rand(len(batch), 2, generator=step.generator)  # of the whole batch, whoever takes which part
            places, counts = self._share(len(batch))
            mine = batch[places]
            views = inputs[mine.to(inputs.device)].to(self.device)
            if views.ndim == 4:  # else they are no longer images
                views = augment(views, self.augmentation, draws[places])
            losses = goal.loss(step.parallel(views).float(), goal.targets[mine].to(self.device))
            own = (losses * counts.to(self.device)).sum()
            step.optimizer.zero_grad()
            # Gradients are averaged over processes.
            self.accelerator.backward(own * self.accelerator.num_processes / len(batch))
            self.accelerator.clip_grad_norm_(step.parallel.parameters(), self.settings.clip_norm)
            for group in step.optimizer.param_groups:
                group["lr"] = float(lr) * group.get("rate", 1.0)
            step.optimizer.step()
            step.average()
            total += own.detach()
        if self.accelerator.num_processes > 1:
            self._average_statistics(step.network)
        return float(self.accelerator.reduce(total, "sum")) / len(fit)

    def _share(self, count: int) -> tuple[Tensor, Tensor]:
        """This process's contiguous part of `count` images, and which of it count, 1 or 0.

        Parts are equally long; where `count` does not divide, the last image is repeated, and repetitions count 0.
        """
        size = math.ceil(count / self.accelerator.num_processes)
        places = torch.arange(size) + self.accelerator.process_index * size
        return places.clamp(max=count - 1), (places < count).float()

    @torch.no_grad()
    def _average_statistics(self, network: nn.Module) -> None:
        """Gives every process the mean of all processes' batch-norm statistics."""
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                for buffer in module.buffers(recurse=False):
                    if buffer.is_floating_point():
                        buffer.copy_(self.accelerator.reduce(buffer.clone(), "mean"))


@contextmanager
def training_processes(settings: Settings) -> Iterator[Trainer]:
    """A trainer on what `accelerate launch` started, or on this process alone: GPUs where there are any, else CPUs."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    threads = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=alone)  # of a training before, perhaps of another precision
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="bf16" if settings.bf16 else "no",
        # A pooling may leave parameters of the backbone unused, the same ones in every step.
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=True)],
    )
    if accelerator.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
        torch.set_num_threads(max(1, cpu_count() // accelerator.num_processes))
    try:
        yield Trainer(accelerator, settings)
        accelerator.wait_for_everyone()
    finally:
        if alone:
            accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=alone)
        torch.set_num_threads(threads)


def _learning_rates(highest: float, epochs: int, steps_per_epoch: int) -> np.ndarray:
    """A warm-up and half a cosine, [epochs, steps per epoch]."""
    steps = epochs * steps_per_epoch
    return cosine(highest, 0.0, steps, 1, warmup_epochs=int(WARMUP * steps)).reshape(epochs, steps_per_epoch)
