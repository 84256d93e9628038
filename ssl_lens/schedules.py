"""How quantities change during training, by step or epoch."""

from __future__ import annotations

import numpy as np

from ssl_lens.errors import InputError


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
