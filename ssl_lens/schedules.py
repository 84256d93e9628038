"""Every quantity that changes during training, as a function of the step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_lens.errors import InputError


class Hyperparameters(NamedTuple):
    """The values of one step."""

    lr: float
    weight_decay: float
    ema_momentum: float
    teacher_temp: float
    freeze_last_layer: bool


class Schedules:
    """The reference's schedules: cosines by step; teacher temperature and last-layer freeze by epoch.

    Args:
        epochs, steps_per_epoch: length of the run; a step is one update of the weights.
        lr: peak learning rate (see `scaled_lr`), reached after `lr_warmup_epochs` of linear growth from 0.
        final_lr: learning rate towards which the cosine falls.
        weight_decay, final_weight_decay: ends of its cosine.
        ema_momentum, final_ema_momentum: ends of the teacher momentum's cosine.
        teacher_temp: temperature of the teacher's softmax after its warm-up.
        warmup_teacher_temp: the same in the first epoch.
        teacher_temp_warmup_epochs: epochs of linear growth between the two, both ends included.
        freeze_last_layer_epochs: epochs during which the last layers of the heads stand still.

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
        ema_momentum: float,
        final_ema_momentum: float,
        teacher_temp: float,
        warmup_teacher_temp: float,
        teacher_temp_warmup_epochs: int,
        freeze_last_layer_epochs: int,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.freeze_last_layer_epochs = freeze_last_layer_epochs
        self.lr = cosine(lr, final_lr, epochs, steps_per_epoch, warmup_epochs=lr_warmup_epochs)
        self.weight_decay = cosine(weight_decay, final_weight_decay, epochs, steps_per_epoch)
        self.ema_momentum = cosine(ema_momentum, final_ema_momentum, epochs, steps_per_epoch)
        self.teacher_temp = teacher_temperature(warmup_teacher_temp, teacher_temp, teacher_temp_warmup_epochs, epochs)

    @property
    def total_steps(self) -> int:
        return len(self.lr)

    def at(self, step: int) -> Hyperparameters:
        """The values of step 0 <= step < total_steps."""
        epoch = step // self.steps_per_epoch
        return Hyperparameters(
            lr=float(self.lr[step]),
            weight_decay=float(self.weight_decay[step]),
            ema_momentum=float(self.ema_momentum[step]),
            teacher_temp=float(self.teacher_temp[epoch]),
            freeze_last_layer=epoch < self.freeze_last_layer_epochs,
        )


def cosine(
    base: float, final: float, epochs: int, steps_per_epoch: int, warmup_epochs: int = 0, start: float = 0.0
) -> np.ndarray:
    """Linear warm-up from start to base (both included), then half a cosine from base towards final.

    Returns: one float64 value per step, [epochs * steps_per_epoch]; the last one stays just short of `final`.
    Raises: InputError if the warm-up is longer than the run.
    Source: DINO (Caron et al. 2021), utils.cosine_scheduler.
    """
    if warmup_epochs > epochs:
        raise InputError(f"a warm-up of {warmup_epochs} epochs exceeds the run's {epochs}; make it {epochs} or less")
    warmup = np.linspace(start, base, warmup_epochs * steps_per_epoch)
    steps = (epochs - warmup_epochs) * steps_per_epoch
    decay = final + 0.5 * (base - final) * (1 + np.cos(np.pi * np.arange(steps) / steps))
    return np.concatenate([warmup, decay])


def teacher_temperature(warm: float, final: float, warmup_epochs: int, epochs: int) -> np.ndarray:
    """Linear from warm to final over warmup_epochs (both ends included), then final; [epochs] in float64.

    A run shorter than the warm-up ends on the way: the temperature depends on the epoch alone.
    Source: DINO (Caron et al. 2021), DINOLoss.
    """
    warmup = np.linspace(warm, final, warmup_epochs)
    return np.concatenate([warmup, np.full(max(epochs - warmup_epochs, 0), final)])[:epochs]


def scaled_lr(lr_per_256_images: float, global_batch_size: int) -> float:
    """Learning rate for a global batch (images of one update over all ranks), by the linear rule (Goyal 2017)."""
    return lr_per_256_images * global_batch_size / 256
