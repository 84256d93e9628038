"""A network fine-tuned to measure numbers of an image, and what it says of other images, rotated ones too."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.images import ImageSet
from ssl_lens.data.splits import own_division
from ssl_lens.errors import InputError
from ssl_lens.evaluation.finetune import Epoch, Examples, Predictor, Trainer, predictor
from ssl_lens.evaluation.protocol import SPLIT_SEED, TEST_FRACTION
from ssl_lens.evaluation.rotation import quarter_turns, spread

logger = logging.getLogger(__name__)

VALIDATION_FRACTION = 0.2
MIN_VALIDATION = 10  # with fewer images the best epoch would be chosen by chance


class Quantities(NamedTuple):
    """Images with the numbers to be measured in them; values float64 [N, T]."""

    images: ImageSet
    values: np.ndarray


class Measurement(NamedTuple):
    """What one trained network says of the test images; the spreads are those of `rotation.spread`.

    Shapes: predicted [M, T], rotation_std [T], quarter_turn_std [T], all in the targets' units.
    """

    predicted: np.ndarray
    rotation_std: np.ndarray
    quarter_turn_std: np.ndarray
    parameters: int


class RegressionResult(NamedTuple):
    """One trained network, judged. Shapes: truth [M, T]."""

    method: str
    labels: int | None  # None: all
    seed: int
    truth: np.ndarray
    measurement: Measurement


class Regressor(NamedTuple):
    """A network for standardised targets, and how to undo that: value = mean + std * output; mean, std [T]."""

    network: Predictor
    mean: Tensor
    std: Tensor


def divide_quantities(
    images: ImageSet,
    targets: Sequence[str],
    split: Path | None,
    *,
    log_targets: Sequence[str],
    labels: Sequence[int | None],
) -> tuple[Quantities, Quantities]:
    """Images with targets to train on, and those to judge by: the ones in the file `split`, else those that the set
    itself holds out, else a seeded fifth.

    Targets named in `log_targets` are replaced by their decimal logarithm; images without all targets are left out.

    Raises: InputError if there is no such target, a part is without, a logarithm does not exist, or `labels` asks for
        more images than there are to train on.
    """
    parts = own_division(images, split)
    if parts is None:
        whole = _with_targets(images, targets)
        order = np.random.default_rng(SPLIT_SEED).permutation(len(whole.values))
        test = np.sort(order[: max(1, round(TEST_FRACTION * len(order)))])
        train = np.setdiff1d(order, test)
        quantities = [Quantities(whole.images.subset(index), whole.values[index]) for index in (train, test)]
    else:
        quantities = [_with_targets(part, targets) for part in parts]
    quantities = [part._replace(values=_logarithms(part, targets, log_targets)) for part in quantities]
    wanted = max((count for count in labels if count is not None), default=2)
    if wanted > len(quantities[0].values) or wanted < 2:
        raise InputError(f"--labels {wanted} is not possible; ask for 2 to {len(quantities[0].values)} images, or all")
    return quantities[0], quantities[1]


def _with_targets(images: ImageSet, targets: Sequence[str]) -> Quantities:
    """The images that have all targets, and these; how many have not is told in the log."""
    for name in targets:
        if name not in images.targets:
            close = difflib.get_close_matches(name, images.targets, n=3, cutoff=0.5)
            there = (
                f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(images.targets) or 'none'}"
            )
            raise InputError(
                f"--target {name} is no number that the images have; {there}; give a table with a column {name} by "
                "--table FILE, or as targets.csv beside them"
            )
    values = np.stack([images.targets[name] for name in targets], axis=1)
    known = np.isfinite(values).all(axis=1)
    if known.sum() < 2:
        raise InputError(
            f"{', '.join(targets)} is known of {known.sum()} of {len(images)} images; the first column of the table "
            f"must be their paths, such as {images.names[0]}"
        )
    if not known.all():
        logger.info("%d of %d images left out, without %s", (~known).sum(), len(images), ", ".join(targets))
        images = images.subset(np.flatnonzero(known))
    return Quantities(images, values[known])


def train_regressor(
    trainer: Trainer,
    backbone: Backbone,
    images: Tensor,
    values: np.ndarray,
    *,
    names: Sequence[str],
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Regressor:
    """A network (images [B, C, h, w] -> T numbers) trained on these images alone, by a Huber loss.

    The targets are standardised by mean and standard deviation of the images to fit; the loss is quadratic up to one
    standard deviation and linear beyond. Of at least 50 images a fifth is held out, and the weights of the epoch with
    the lowest loss on it are used; fewer all train for a fixed number of epochs.

    Args:
        images: preprocessed, [N, C, h, w], on any device.
        values: [N, T]; names: of the T targets, for messages.
    Raises: InputError if a target is constant, the backbone cannot take the images, or the loss is not finite.
    """
    fit, validation = divide_fit(len(values), seed)
    mean, std = values[fit].mean(axis=0), values[fit].std(axis=0)
    if not std.all():
        column = int(np.argmin(std))
        raise InputError(f"--target {names[column]} is {mean[column]:g} of all {len(fit)} images; nothing to learn")
    torch.manual_seed(seed)  # the head
    network = predictor(backbone, values.shape[1], trainer.settings.pooling, images[:1])
    targets = torch.from_numpy((values - mean) / std).float().to(images.device)
    network = trainer.train(network, Examples(images, targets, fit, validation), huber, seed=seed, on_epoch=on_epoch)
    return Regressor(network, torch.from_numpy(mean), torch.from_numpy(std))


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Loss of every image [B], the mean over targets [B, T]."""
    return F.huber_loss(outputs, targets, reduction="none").mean(dim=1)


def divide_fit(count: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Images to fit and images to validate, None where there are too few."""
    size = int(VALIDATION_FRACTION * count)
    if size < MIN_VALIDATION:
        return np.arange(count), None
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])


def measure(trainer: Trainer, regressor: Regressor, images: Tensor) -> Measurement:
    """The numbers in prepared images [M, C, h, w], and how much rotating the images changes them."""
    outputs = trainer.turned_outputs(regressor.network, images).double().cpu()
    values = regressor.mean + regressor.std * outputs
    spreads = spread(values), spread(quarter_turns(values))
    return Measurement(values[0].numpy(), *(part.numpy() for part in spreads), regressor.network.parameter_count)


def few_label_measurements(
    method: str,
    measure_test: Callable[[np.ndarray, int], Measurement],
    train: Quantities,
    test: Quantities,
    *,
    labels: Sequence[int | None],
    seeds: int,
) -> Iterator[RegressionResult]:
    """Trains and judges one network per number of labels (None: all) and seed; larger subsets hold smaller ones.

    Args:
        measure_test: trains on the images train[index] and measures `test`; called as measure_test(index, seed).
    """
    for count in labels:
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(train.values))
            index = np.sort(order[:count])
            yield RegressionResult(method, count, seed, test.values, measure_test(index, seed))


def _logarithms(part: Quantities, targets: Sequence[str], log_targets: Sequence[str]) -> np.ndarray:
    values = part.values.copy()
    for name in log_targets:
        column = values[:, targets.index(name)]
        if (column <= 0).any():
            image = part.images.names[int(np.argmin(column))]
            raise InputError(f"--log-target {name} has no logarithm for {image} ({column.min():g}); use --target alone")
        column[:] = np.log10(column)
    return values
