"""The few-label protocol: one fixed evaluation part, classifiers trained on seeded subsets of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.images import ImageSet
from ssl_lens.data.splits import own_division, per_class_subset, stratified_split
from ssl_lens.errors import InputError
from ssl_lens.evaluation.metrics import accuracy, macro_auc

TEST_FRACTION = 0.2
SPLIT_SEED = 0


class Division(NamedTuple):
    """Labelled images: those that classifiers may train on, and those that only judge."""

    train: ImageSet
    test: ImageSet


class Prediction(NamedTuple):
    """What one trained classifier says of the test images; of a whole network also how large and steady it is.

    Shapes: probabilities [M, C].

    Attributes:
        parameters: trained numbers of backbone and head.
        logit_std: spread of the logits over 8 rotations by 45 degrees (see `rotation.spread`).
        quarter_turn_logit_std: the same over the 4 rotations by 90 degrees, which change no pixel.
    """

    probabilities: np.ndarray
    parameters: int | None = None
    logit_std: float | None = None
    quarter_turn_logit_std: float | None = None


class Result(NamedTuple):
    """One trained classifier, judged. Shapes: labels int [M]."""

    method: str
    labels_per_class: int | None  # None: all
    seed: int
    labels: np.ndarray
    prediction: Prediction

    @property
    def probabilities(self) -> np.ndarray:
        return self.prediction.probabilities

    @property
    def accuracy(self) -> float:
        return accuracy(self.labels, self.probabilities)

    @property
    def auc(self) -> float:
        return macro_auc(self.labels, self.probabilities)


def divide_labelled(
    images: ImageSet, folder: Path, split: Path | None, *, labels_per_class: Sequence[int | None]
) -> Division:
    """Divides labelled images into those to train on and those to judge by.

    The latter are the images named in the file `split`, else those that the set itself holds out, else a seeded
    stratified fifth.

    Args:
        folder: where the images came from, for messages.
        labels_per_class: sizes of the training subsets to come, None for all.

    Raises: InputError if the images have no class folders, a class is missing from a part, or one has fewer training
        images than the largest subset needs.
    """
    if images.labels is None or len(images.classes) < 2:
        raise InputError(
            f"--data {folder} has no labels; put the images into one folder per class, two classes or more, "
            f"such as {folder}/lens and {folder}/nolens, or add {folder}/targets.csv with a column label"
        )
    images = images.labelled()
    parts = own_division(images, split)
    if parts is None:
        parts = (images.subset(index) for index in stratified_split(images.labels, TEST_FRACTION, SPLIT_SEED))
    division = Division(*parts)
    train, test = (np.bincount(part.labels, minlength=len(images.classes)) for part in division)
    wanted = max((count for count in labels_per_class if count is not None), default=1)
    if train.min() < wanted:
        raise InputError(
            f"--labels-per-class {wanted} exceeds the {train.min()} training images of class "
            f"{images.classes[train.argmin()]}; ask for at most {train.min()}, or add images"
        )
    if test.min() == 0:
        source = f"--split {split} names" if split else "the images held out for tests have"
        raise InputError(f"{source} no image of class {images.classes[test.argmin()]}; add some")
    return division


def few_label_results(
    method: str,
    classify: Callable[[np.ndarray, int], Prediction],
    division: Division,
    *,
    labels_per_class: Sequence[int | None],
    seeds: int,
    repeat_all: bool,
) -> Iterator[Result]:
    """Trains and judges one classifier per subset and seed.

    Args:
        classify: trains on the images division.train[index] and predicts division.test; called as
            classify(index, seed).
        labels_per_class: sizes of the stratified subsets, None for all labels.
        repeat_all: whether to repeat the training on all labels for every seed; pointless where only the choice of
            the subset is random.
    """
    for count in labels_per_class:
        for seed in range(seeds if count is not None or repeat_all else 1):
            index = per_class_subset(division.train.labels, count, seed)
            yield Result(method, count, seed, division.test.labels, classify(index, seed))


def grouped(results: Sequence[Result]) -> dict[tuple[str, int | None], list[Result]]:
    """Results by method and number of labels, in order of first appearance."""
    groups: dict[tuple[str, int | None], list[Result]] = {}
    for result in results:
        groups.setdefault((result.method, result.labels_per_class), []).append(result)
    return groups


def count_name(labels: int | None) -> str:
    """A number of labels in words."""
    return "all" if labels is None else str(labels)
