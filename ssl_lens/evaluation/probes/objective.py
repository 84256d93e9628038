"""What a network learns of answers: targets and loss, what its outputs mean, and which images it is validated on."""

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
    """What a network is trained for: a low loss. What is wanted is a small error: 1 for a wrong class, the distance.

    Shapes: targets [N, ...].
    """

    targets: Tensor
    loss: Loss
    error: Loss
    num_outputs: int
    outputs: Outputs


def objective(answers: Answers, fit: np.ndarray) -> Objective:
    """How to learn answers, on as many images, of which those at `fit` are trained on.

    Classes: cross-entropy. Numbers, standardised by mean and standard deviation of the images to fit: a Huber loss,
    quadratic up to one standard deviation and linear beyond.

    Raises: InputError if a number is constant.
    """
    match answers:
        case Classes():
            targets, loss = torch.from_numpy(answers.labels), partial(F.cross_entropy, reduction="none")
            return Objective(targets, loss, wrong, len(answers.names), ClassOutputs(answers.names))
        case Numbers():
            mean, std = answers.values[fit].mean(axis=0), answers.values[fit].std(axis=0)
            if not std.all():
                column = int(np.argmin(std))
                raise InputError(
                    f"{answers.names[column]} is {mean[column]:g} of all {len(fit)} images; nothing to learn"
                )
            targets = torch.from_numpy((answers.values - mean) / std).float()
            outputs = Targets(answers.columns, tuple(mean.tolist()), tuple(std.tolist()), answers.log)
            return Objective(targets, huber, distance, len(mean), outputs)
        case _:
            raise AssertionError(f"a network does not learn {answers}")


def divided(answers: Answers, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to fit and images to validate, a fifth; None of fewer than 50 images, or of a class."""
    if isinstance(answers, Classes):
        return divide_labels(answers.labels, seed)
    assert isinstance(answers, Numbers)
    return divide_count(len(answers.values), seed)


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of every image [B], the mean over numbers [B, T]."""
    return F.huber_loss(outputs, targets, reduction="none").mean(dim=1)


def distance(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of every image from numbers [B, T], the mean over them, [B]."""
    return (outputs - targets).abs().mean(dim=1)


def wrong(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 for every image [B] whose largest logit [B, C] is not that of its class, else 0."""
    return (outputs.argmax(dim=1) != targets).float()


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
