"""Which images are for training and which for evaluation, and split files that say so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from ssl_lens.data.images import ImageSet
from ssl_lens.errors import InputError
from ssl_lens.files import MOST_LISTING, read_text

TEST_FRACTION = 0.2
SPLIT_SEED = 0


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits into a training part and a test part of `fraction` of the images, with the classes in proportion.

    Args:
        labels: class of each image [N].
        fraction: size of the test part, between 0 and 1.
    Returns:
        Sorted indices of the training and the test images.
    Raises:
        InputError: a part would be left without some class.
    """
    try:
        train, test = train_test_split(np.arange(len(labels)), test_size=fraction, random_state=seed, stratify=labels)
    except ValueError as error:
        raise InputError(
            f"{len(labels)} images cannot be split with a test fraction of {fraction}: {error}; "
            "give more images of each class or another fraction"
        ) from error
    return np.sort(train), np.sort(test)


def usual_division(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images to train on and those to judge by of a set that says nothing of it: a stratified fifth, the same for
    every run and whoever asks.

    Args:
        labels: class of each image [N].
    Returns:
        Sorted indices of both.
    Raises:
        InputError: as `stratified_split`.
    """
    return stratified_split(labels, TEST_FRACTION, SPLIT_SEED)


def per_class_subset(labels: np.ndarray, n_per_class: int | None, seed: int) -> np.ndarray:
    """Sorted indices of `n_per_class` random images of each class (all if None); larger subsets hold smaller ones.

    Raises:
        InputError: a class has fewer images.
    """
    if n_per_class is None:
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < n_per_class or n_per_class < 1:
        raise InputError(
            f"{n_per_class} labels per class asked but class {classes[counts.argmin()]} has {counts.min()} images; "
            f"ask for 1 to {counts.min()}, or all"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == label][:n_per_class] for label in classes]))


def read_names(path: Path) -> tuple[str, ...]:
    """Names in a split file: one path per line, relative to the set's folder, with `/`; `#` starts a comment line."""
    lines = read_text(path, most=MOST_LISTING).splitlines()
    names = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if len(set(names)) != len(names):
        raise InputError(f"split file {path} lists an image twice; list each once")
    return names


def write_names(path: Path, names: Iterable[str], comment: str | None = None) -> None:
    """Writes a split file, sorted, with an optional comment as its first line."""
    head = [] if comment is None else [f"# {comment}"]
    path.write_text("".join(f"{line}\n" for line in [*head, *sorted(names)]), encoding="utf-8")


def own_division(images: ImageSet, split: Path | None) -> tuple[ImageSet, ImageSet] | None:
    """The images for training and those for tests: the latter as the file `split` names them, else as the set itself
    holds them out; None if neither says anything.

    Raises: InputError as `divide`, or if the set holds out every image.
    """
    if split is not None:
        return divide(images, read_names(split))
    if images.held_out is None:
        return None
    if images.held_out.all():
        raise InputError(
            f"all {len(images)} images are held out for tests, such as {images.names[0]}; add others to train on"
        )
    return images.subset(np.flatnonzero(~images.held_out)), images.subset(np.flatnonzero(images.held_out))


def divide(image_set: ImageSet, names: Iterable[str]) -> tuple[ImageSet, ImageSet]:
    """Divides a set into the images not named and those named, each in the set's order.

    Raises:
        InputError: a name is not in the set, or one of the parts is empty.
    """
    wanted = set(names)
    unknown = sorted(wanted.difference(image_set.names))
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(wanted)} names of the split are not in the image set, such as {unknown[0]}; "
            "give the split file of this image set"
        )
    is_named = np.array([name in wanted for name in image_set.names])
    if is_named.all() or not is_named.any():
        raise InputError(
            f"the split names {len(wanted)} of {len(image_set)} images, which leaves a part empty; "
            "give a split file that names some of the images"
        )
    return image_set.subset(np.flatnonzero(~is_named)), image_set.subset(np.flatnonzero(is_named))
