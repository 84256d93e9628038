"""The arrays of an HDF5 or .npz file: those that are the image, and the labels of images next to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ssl_lens.data.folders.parts import PARTS, TRAIN, Part, part_in
from ssl_lens.data.formats.layout import Pixels, count_of
from ssl_lens.data.formats.plane_images import read_planes
from ssl_lens.data.formats.plane_names import is_label, kind_of, noise_kind
from ssl_lens.data.formats.planes import Chosen, Plane, PlaneChoice, choose
from ssl_lens.data.formats.sample import Sample, UnusableImage

_LONGEST_LABEL = 200  # characters


class Array(NamedTuple):
    """An array in a file.

    Attributes:
        shape: its axes; None for a dataset without any.
        pixels: opens it.
    """

    shape: tuple[int, ...] | None
    pixels: Callable[[], Pixels]


class _Answers(NamedTuple):
    """What a file says of its images: classes as text, or numbers, by the name of the array."""

    name: str
    values: list[str] | list[float]


def read_arrays(arrays: Mapping[str, Array], choice: PlaneChoice, *, what: str) -> Iterator[Sample]:
    """The images of a file of named arrays, with their classes or numbers where the file holds them.

    Where the names of all arrays of images say which part of a set they are, as `x_train` and `x_test`, each part is
    read by itself, and its images are called after it: `test/000012`.

    Args:
        what: the format's word for an array.
    Raises: UnusableImage as `planes.choose`.
    """
    parts = {} if choice.planes else _parts(arrays)
    if not parts:
        yield from _read(arrays, choice, what)
    for part, of_part in parts.items():
        for i, sample in enumerate(_read(of_part, choice, what)):
            yield sample._replace(name=f"{part}/{i:06d}")


def _parts(arrays: Mapping[str, Array]) -> dict[Part, dict[str, Array]]:
    """The arrays of each part of a set; empty if the images are not told apart so, or are all for training.

    What belongs to no part, such as a PSF, belongs to each, but labels do not.
    """
    part_of = {name: next(filter(None, map(part_in, name.split("/"))), None) for name in arrays}
    images = [name for name in _planes(arrays) if kind_of(name) != "other"]
    found = {name: mark.part for name, mark in part_of.items() if mark is not None}
    if not all(name in found for name in images) or {found[name] for name in images} <= {TRAIN}:
        return {}
    common = {name: array for name, array in arrays.items() if name not in found and not is_label(name)}
    return {
        part: common | {name: array for name, array in arrays.items() if found.get(name) == part}
        for part in PARTS
        if part in (found[name] for name in images)
    }


def _read(arrays: Mapping[str, Array], choice: PlaneChoice, what: str) -> Iterator[Sample]:
    """The images of the arrays that are one set."""
    names = _planes(arrays)
    planes = [
        Plane(name, i, arrays[name].shape or (), kind_of(name), noise=noise_kind(name)) for i, name in enumerate(names)
    ]
    chosen = choose(planes, choice, what=what, ordered=False)
    answers = _answers(arrays, names, chosen)
    samples = read_planes(planes, lambda i: arrays[names[i]].pixels(), choice, what=what, ordered=False)
    for i, sample in enumerate(samples):
        if answers is None:
            yield sample
        elif isinstance(answer := answers.values[i], str):
            yield sample._replace(label=answer)
        else:
            yield sample._replace(targets={**sample.targets, answers.name: answer})


def _planes(arrays: Mapping[str, Array]) -> list[str]:
    """Names of the arrays that may be images: those of two axes or more; all, if none has."""
    wide = [name for name, array in arrays.items() if array.shape is None or len(array.shape) >= 2]
    images = [name for name in wide if len(arrays[name].shape or ()) > 2 or not is_label(name)]  # not one-hot labels
    return images or wide or list(arrays)


def _answers(arrays: Mapping[str, Array], names: list[str], chosen: Chosen) -> _Answers | None:
    """What is said of each image, by the only array that can say it; None if there is none, or several."""
    shape = arrays[names[chosen.planes[0]]].shape
    if shape is None:
        return None
    count = count_of(shape)
    images = {names[i] for i in chosen.planes}
    found = [
        _Answers(_number_name(name), values)
        for name, array in arrays.items()
        if is_label(name) and name not in images and (values := _values(array, count)) is not None
    ]
    return found[0] if len(found) == 1 else None


def _number_name(array: str) -> str:
    """What numbers of an array are called; `label` and `class` are columns of classes in a table."""
    name = array.rpartition("/")[2]
    return f"{name}_number" if name.lower() in ("label", "class") else name


def _values(array: Array, count: int) -> list[str] | list[float] | None:
    """An array [N], [N, 1], one value for one image, or one-hot [N, K], as classes of N images; fractions are numbers.

    Whole numbers of a floating type are classes in a stack; of one image, other files may hold fractions.
    """
    shape = array.shape
    if shape is None or (shape and shape[0] != count) or (not shape and count != 1) or len(shape) > 2:
        return None
    values = np.asarray(array.pixels().read(None))
    if values.ndim == 2 and values.shape[1] > 1:
        if values.dtype.kind not in "biuf" or not np.array_equal(np.sort(values, axis=1)[:, -2:], [[0, 1]] * count):
            return None
        values = values.argmax(axis=1)
    if values.dtype.kind == "f" and (count == 1 or not (values == np.round(values)).all()):
        return [float(value) if np.isfinite(value) else np.nan for value in values.ravel()]
    return [_class(value) for value in values.ravel().tolist()] if values.dtype.kind in "biufSUO" else None


def _class(value: object) -> str:
    """A label as text: whole numbers without a point.

    Raises: UnusableImage for what cannot be one.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if not isinstance(value, str | int) or not text or not text.isprintable() or len(text) > _LONGEST_LABEL:
        raise UnusableImage(f"label {text!r:.50} in the file is not a whole number or 1 to {_LONGEST_LABEL} characters")
    return text
