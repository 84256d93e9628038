"""Which images are for training and which are judged, what is asked of them, and the few-label subsets."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ssl_lens.data.images import UNLABELLED, ImageSet
from ssl_lens.data.splits import SPLIT_SEED, TEST_FRACTION, own_division, per_class_subset, usual_division
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Answers, Classes, Normal, Numbers
from ssl_lens.evaluation.table import ALL, NONE

logger = logging.getLogger(__name__)

USUAL, ANOMALY = "usual", "anomaly"  # the classes that anomalies are judged by


@dataclass(frozen=True)
class Question:
    """What is asked of a set of images.

    Attributes:
        split: names of the images to judge by; None: those that the set holds out, else a seeded fifth.
        labels_per_class: sizes of the subsets that classes are learned from, None for all.
        labels: the same for numbers, images in all.
        target_columns: numbers of the images' table to measure.
        log_targets: those of them of which to measure the decimal logarithm.
        anomaly: classes that are anomalies; none: which images are outliers is to be found without labels.
    """

    split: Path | None = None
    labels_per_class: Sequence[int | None] = (10, 100, None)
    labels: Sequence[int | None] = (100, None)
    target_columns: Sequence[str] = ()
    log_targets: Sequence[str] = ()
    anomaly: Sequence[str] = ()


@dataclass(frozen=True)
class Draw:
    """A random subset of the training images to learn from; index into them, [n]."""

    labels: str
    seed: int
    index: np.ndarray


@dataclass(frozen=True)
class Division:
    """Images to train on and images to judge by.

    Attributes:
        train, test: indices into the image set, [N] and [M].
        learned: answers of the N images.
        truth: answers of the M images; None: nobody knows.
        budgets: numbers of labels to learn from, None for all.
        subset: (number of labels, seed) -> index into `train`.
        with_labels: whether what is learned are labels.
    """

    train: np.ndarray
    test: np.ndarray
    learned: Answers
    truth: Classes | Numbers | None
    budgets: Sequence[int | None] = (None,)
    subset: Callable[[int | None, int], np.ndarray] | None = None
    with_labels: bool = True

    def draws(self, seeds: int, *, repeat_all: bool) -> Iterator[Draw]:
        """Every subset to learn from.

        Args:
            seeds: random subsets of each size.
            repeat_all: whether to repeat the training on all images for every seed; pointless where only the choice of
                the subset is random.
        """
        everything = np.arange(len(self.train))
        for count in self.budgets:
            for seed in range(seeds if count is not None or repeat_all else 1):
                index = everything if count is None or self.subset is None else self.subset(count, seed)
                yield Draw((ALL if self.with_labels else NONE) if count is None else str(count), seed, index)


class Divisions:
    """The ways to divide a set of images, each made when first asked for."""

    def __init__(self, images: ImageSet, question: Question) -> None:
        self.images, self.question = images, question

    @cached_property
    def classes(self) -> Division:
        """By class: the test part is a stratified fifth where nothing else says which images it has.

        Raises: InputError if the images have no classes, a part lacks one, or no subset asked for can be had.
        """
        images, question = self.images, self.question
        if images.labels is None or len(images.classes) < 2:
            raise InputError(
                "the images have no labels; put them into one folder per class, two classes or more, such as DIR/lens "
                "and DIR/nolens, or add DIR/targets.csv with a column label"
            )
        known = images.labels != UNLABELLED
        if not known.all():
            logger.info("%d of %d images left out, without a class", (~known).sum(), len(images))
        train, test = self._parts(known, stratified=True)
        learned, truth = (Classes(images.labels[part], images.classes) for part in (train, test))
        counts, judged = (np.bincount(part.labels, minlength=len(images.classes)) for part in (learned, truth))
        if counts.min() == 0:
            raise InputError(f"there is no image of class {images.classes[counts.argmin()]} to train on; add some")
        if judged.min() == 0:
            source = "the split names" if question.split else "the images held out for tests have"
            raise InputError(f"{source} no image of class {images.classes[judged.argmin()]}; add some")
        what = f"class {images.classes[counts.argmin()]} has {counts.min()} images to train on"
        budgets = fitting(question.labels_per_class, 1, int(counts.min()), "labels_per_class", what)
        return Division(
            train, test, learned, truth, budgets, lambda count, seed: per_class_subset(learned.labels, count, seed)
        )

    @cached_property
    def numbers(self) -> Division:
        """By the numbers in `target_columns`, of the images that have them all.

        Raises: InputError if there is no such number, a part is without, a logarithm does not exist, a number is
            constant, or no subset asked for can be had.
        """
        question, images = self.question, self.images
        if not question.target_columns:
            raise InputError("regression needs target_columns, the numbers in the images' table to measure; name some")
        values = _columns(images, question.target_columns)
        known = np.isfinite(values).all(axis=1)
        train, test = self._parts(known, stratified=False)
        if not known.all():
            without = ", ".join(question.target_columns)
            logger.info("%d of %d images left out, without %s", (~known).sum(), len(images), without)
        values = _logarithms(values, images, np.concatenate([train, test]), question)
        columns = tuple(question.target_columns)
        log = tuple(name in question.log_targets for name in columns)
        learned, truth = (Numbers(values[part], columns, log) for part in (train, test))
        constant = np.ptp(learned.values, axis=0) == 0
        if constant.any():
            column = int(constant.argmax())
            raise InputError(
                f"{learned.names[column]} is {learned.values[0, column]:g} of all {len(train)} images; nothing to learn"
            )
        budgets = fitting(question.labels, 2, len(train), "labels", f"there are {len(train)} images to train on")

        def subset(count: int | None, seed: int) -> np.ndarray:
            return np.sort(np.random.default_rng(seed).permutation(len(train))[:count])

        return Division(train, test, learned, truth, budgets, subset)

    @cached_property
    def normal(self) -> Division:
        """By what is usual: all classes but those in `anomaly`, judged by these; else all images among themselves.

        Raises: InputError if there is no such class or no image of another.
        """
        images, question = self.images, self.question
        if not question.anomaly:
            everything = np.arange(len(images))
            return Division(everything, everything, Normal(), None, with_labels=False)
        unknown = [name for name in question.anomaly if name not in images.classes]
        if unknown or len(set(question.anomaly)) >= len(images.classes):
            raise InputError(
                f"anomaly={unknown[0] if unknown else ','.join(question.anomaly)} is not one of several classes; "
                f"the images have {', '.join(images.classes) or 'none'}"
            )
        divided = self.classes
        assert isinstance(divided.learned, Classes)
        assert isinstance(divided.truth, Classes)
        unusual = np.isin(images.classes, question.anomaly)
        train = divided.train[~unusual[divided.learned.labels]]
        if len(train) < 2:
            raise InputError(f"other than anomaly={','.join(question.anomaly)} there are no two images to train on")
        truth = Classes(unusual[divided.truth.labels].astype(np.int64), (USUAL, ANOMALY))
        return Division(train, divided.test, Normal(), truth)

    def _parts(self, usable: np.ndarray, *, stratified: bool) -> tuple[np.ndarray, np.ndarray]:
        """Sorted indices of the usable images to train on and to judge by."""
        images = self.images
        parts = own_division(images, self.question.split)
        if parts is not None:
            place = {name: i for i, name in enumerate(images.names)}
            train, test = (np.array([place[name] for name in part.names], dtype=np.int64) for part in parts)
            if not stratified:
                for part in (train, test):
                    _check_known(images, part, usable, self.question.target_columns)
            return train[usable[train]], test[usable[test]]
        if stratified:
            assert images.labels is not None
            known = np.flatnonzero(usable)
            train, test = usual_division(images.labels[known])
            return known[train], known[test]
        _check_known(images, np.arange(len(images)), usable, self.question.target_columns)
        order = np.random.default_rng(SPLIT_SEED).permutation(np.flatnonzero(usable))
        count = max(1, round(TEST_FRACTION * len(order)))
        return np.sort(order[count:]), np.sort(order[:count])


def fitting(budgets: Sequence[int | None], fewest: int, most: int, argument: str, what: str) -> tuple[int | None, ...]:
    """The numbers of labels that can be had; those that were asked for and cannot are named in the log.

    Raises: InputError if none can.
    """
    possible = tuple(count for count in budgets if count is None or fewest <= count <= most)
    left_out = [count for count in budgets if count not in possible]
    asked = ",".join(map(str, left_out))
    if not possible:
        raise InputError(f"{argument}={asked} is not possible: {what}; ask for {fewest} to {most}, or all")
    if left_out and tuple(budgets) != getattr(Question(), argument):  # nobody asked for the usual ones
        logger.info("%s %s left out: %s", asked, argument.replace("_", " "), what)
    return possible


def _columns(images: ImageSet, names: Sequence[str]) -> np.ndarray:
    for name in names:
        if name not in images.targets:
            close = difflib.get_close_matches(name, images.targets, n=3, cutoff=0.5)
            there = (
                f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(images.targets) or 'none'}"
            )
            raise InputError(
                f"{name} is not a number that the images have; {there}; give a table with a column {name}, or "
                "targets.csv next to them"
            )
    return np.stack([images.targets[name] for name in names], axis=1)


def _check_known(images: ImageSet, part: np.ndarray, known: np.ndarray, names: Sequence[str]) -> None:
    if known[part].sum() < 2:
        raise InputError(
            f"{', '.join(names)} is known of {known[part].sum()} of {len(part)} images; the first column of the table "
            f"must be their paths, such as {images.names[0]}"
        )


def _logarithms(values: np.ndarray, images: ImageSet, used: np.ndarray, question: Question) -> np.ndarray:
    """Values [N, T] with the decimal logarithm in the columns `log_targets`."""
    others = sorted(set(question.log_targets) - set(question.target_columns))
    if others:
        raise InputError(f"log_targets={others[0]} is not one of target_columns; add it there")
    values = values.copy()
    for name in question.log_targets:
        column = values[:, list(question.target_columns).index(name)]
        lowest = used[int(np.argmin(column[used]))]
        if column[lowest] <= 0:
            raise InputError(
                f"log_targets={name} has no logarithm for {images.names[lowest]} ({column[lowest]:g}); "
                "measure the number itself"
            )
        column[used] = np.log10(column[used])
    return values
