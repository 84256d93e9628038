"""The values of every step: the optimiser's and the method's."""

from __future__ import annotations

from typing import Any, NamedTuple

from ssl_lens.methods.method import MethodSchedule
from ssl_lens.schedules import cosine


class Now(NamedTuple):
    """The values of one step; `method` is what the method's own schedule gives, a NamedTuple of numbers."""

    lr: float
    weight_decay: float
    method: Any

    def numbers(self) -> dict[str, float]:
        """All of them by name."""
        own = {"lr": self.lr, "weight_decay": self.weight_decay}
        return own | {name: float(value) for name, value in self.method._asdict().items()}


class Schedule:
    """The reference's schedules of the optimiser, cosines by step, next to those of a method.

    Args:
        epochs, steps_per_epoch: length of the run; a step is one update of the weights.
        lr: peak learning rate (see `schedules.scaled_lr`), reached after `lr_warmup_epochs` of linear growth from 0.
        final_lr: learning rate towards which the cosine falls.
        weight_decay, final_weight_decay: ends of its cosine.
        method: the method's own.

    Raises: InputError if the warm-up is longer than the run.
    Source: DINO (Caron et al. 2021), train_dino.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        lr: float,
        final_lr: float,
        lr_warmup_epochs: int,
        weight_decay: float,
        final_weight_decay: float,
        method: MethodSchedule,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = epochs * steps_per_epoch
        self.lr = cosine(lr, final_lr, epochs, steps_per_epoch, warmup_epochs=lr_warmup_epochs)
        self.weight_decay = cosine(weight_decay, final_weight_decay, epochs, steps_per_epoch)
        self.method = method

    def at(self, step: int) -> Now:
        """The values of step 0 <= step < total_steps."""
        return Now(float(self.lr[step]), float(self.weight_decay[step]), self.method.at(step))
