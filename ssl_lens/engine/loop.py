"""The training loop, the same for every method: the one that recipes run, the golden test and the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_lens.engine.finite import RunningStatistics, any_rank, not_finite
from ssl_lens.engine.schedule import Now, Schedule
from ssl_lens.engine.signals import StopSignals
from ssl_lens.methods.method import Method
from ssl_lens.optim import clip_per_tensor, set_hyperparameters
from ssl_lens.views.multicrop import Views


class Step(NamedTuple):
    """A step that is over, as observers see it.

    Attributes:
        number: counted from 0.
        losses: means over this rank's micro-batches, by name.
        skipped: whether loss or gradients were not finite on some rank, so that nothing has changed on any.
        overflow: whether only the scaled gradients of fp16 were not finite: skipped, and part of its ordinary life.
        stopping: whether the run has been asked to stop after this step.
    """

    number: int
    now: Now
    losses: dict[str, Tensor]
    skipped: bool
    overflow: bool
    stopping: bool


class Observer(Protocol):
    """Looks at every step on every rank, all of them at once; an exception ends the run."""

    def after_step(self, step: Step) -> None:
        """Called when a step is over."""


def train(
    method: Method,
    optimizer: Optimizer,
    views_at: Callable[[int], Iterable[Views]],
    schedule: Schedule,
    accelerator: Accelerator,
    *,
    start: int = 0,
    seed: int = 0,
    accumulate: int = 1,
    clip_norm: float | None = None,
    observers: Sequence[Observer] = (),
    stop: StopSignals | None = None,
) -> int:
    """Trains from step `start` to the last of the schedule, or until asked to stop; returns the steps that are done.

    Args:
        views_at: the views of a step's `accumulate` micro-batches on this rank.
        seed: of the random numbers that the method draws, such as those of drop path.
        clip_norm: largest norm of each parameter's gradient; None for no clipping.

    Source: the order within a step is that of train_one_epoch in DINO and EsViT. Differs: a step whose loss or
    gradients are not finite on any rank changes nothing on all of them.
    """
    statistics, step = RunningStatistics(method), start - 1
    parallel, optimizer = accelerator.prepare(method, optimizer)
    for step in range(start, schedule.total_steps):
        now = schedule.at(step)
        set_hyperparameters(optimizer, lr=now.lr, weight_decay=now.weight_decay)
        torch.manual_seed((seed << 32) + step * accelerator.num_processes + accelerator.process_index)
        method.start_step()
        statistics.remember()
        losses = _accumulate(parallel, views_at(step), now, accelerator, accumulate)
        accelerator.unscale_gradients(optimizer)
        norms = clip_per_tensor(method.trained.parameters(), clip_norm or math.inf)
        flags = not_finite(losses["total"]), not_finite(norms), stop is not None and stop.asked
        bad_loss, bad_gradients, stopping = any_rank(flags, accelerator.device)  # the one time that a step waits
        skip = bad_loss or bad_gradients
        if skip:  # nobody steps, nobody updates
            statistics.restore()
            if accelerator.scaler:  # fp16: it skips by itself, and lowers its scale
                optimizer.step()
        else:
            method.before_step(now.method)
            optimizer.step()
            method.after_step(now.method)
        optimizer.zero_grad()
        overflow = skip and not bad_loss and accelerator.scaler is not None
        for observer in observers:
            observer.after_step(Step(step, now, losses, skip, overflow, stopping))
        if stopping:
            break
    accelerator.unwrap_model(parallel, keep_fp32_wrapper=False)  # the method as it was, without its autocast
    return step + 1


def _accumulate(
    parallel: nn.Module, views: Iterable[Views], now: Now, accelerator: Accelerator, accumulate: int
) -> dict[str, Tensor]:
    """Adds up the gradients of this rank's micro-batches; returns their mean losses."""
    sums: dict[str, list[Tensor]] = {}
    for i, part in enumerate(views):
        last = i + 1 == accumulate
        with nullcontext() if last else accelerator.no_sync(parallel):
            losses = parallel(part, now.method)
            accelerator.backward(losses["total"] / accumulate)
        for name, loss in losses.items():
            sums.setdefault(name, []).append(loss.detach())
    return {name: torch.stack(parts).mean() for name, parts in sums.items()}
