"""What a network learns of answers: targets and loss, which images it is validated on, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.data.splits import stratified_split
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Answers, Classes, Numbers
from ssl_lens.representation.predictor import Classes as ClassOutputs
from ssl_lens.representation.predictor import Outputs, Targets

VALIDATION_FRACTION = 0.2
MIN_VALIDATION = 10  # of every class, or in all: with fewer images the best epoch would be chosen by chance

# (outputs float32 [B, O], targets [B, ...]) -> loss of every image [B]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """What a network is trained for.

    Shapes: targets [N, ...]; fit and validation: indices into them, the latter None where there are too few images to
        hold some out.
    """

    targets: Tensor
    loss: Loss
    num_outputs: int
    outputs: Outputs
    fit: np.ndarray
    validation: np.ndarray | None


def objective(answers: Answers, seed: int) -> Objective:
    """How to learn answers, on as many images.

    Classes: cross-entropy; with at least 50 images of every class, a stratified fifth of them validates. Numbers,
    standardised by mean and standard deviation of the images to fit: a Huber loss, quadratic up to one standard
    deviation and linear beyond; of at least 50 images a fifth validates.

    Raises: InputError if a number is constant.
    """
    match answers:
        case Classes():
            fit, validation = divide_labels(answers.labels, seed)
            targets, loss = torch.from_numpy(answers.labels), partial(F.cross_entropy, reduction="none")
            return Objective(targets, loss, len(answers.names), ClassOutputs(answers.names), fit, validation)
        case Numbers():
            fit, validation = divide_count(len(answers.values), seed)
            mean, std = answers.values[fit].mean(axis=0), answers.values[fit].std(axis=0)
            if not std.all():
                column = int(np.argmin(std))
                raise InputError(
                    f"{answers.names[column]} is {mean[column]:g} of all {len(fit)} images; nothing to learn"
                )
            targets = torch.from_numpy((answers.values - mean) / std).float()
            outputs = Targets(answers.columns, tuple(mean.tolist()), tuple(std.tolist()), answers.log)
            return Objective(targets, huber, len(mean), outputs, fit, validation)
        case _:
            raise AssertionError(f"a network does not learn {answers}")


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of every image [B], the mean over numbers [B, T]."""
    return F.huber_loss(outputs, targets, reduction="none").mean(dim=1)


def divide_labels(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to fit and images to validate, None where a class has too few."""
    if np.bincount(labels).min() * VALIDATION_FRACTION < MIN_VALIDATION:
        return np.arange(len(labels)), None
    return stratified_split(labels, VALIDATION_FRACTION, seed)


def divide_count(count: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The same without classes."""
    size = int(VALIDATION_FRACTION * count)
    if size < MIN_VALIDATION:
        return np.arange(count), None
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])
