"""DeepLense's axion files: pickled object arrays `[image, mass]`, plain ones and 0-d wrapped ones."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ssl_lens.data.formats.inert_pickle import PickledArray, read_pickle
from ssl_lens.data.formats.layout import array_pixels, samples_of
from ssl_lens.data.formats.sample import Sample, UnusableImage

AXION_MASS = "axion_mass_ev"
_DEEPEST_WRAP = 4
_MOST_EXPANSION = 8  # a pixel pickled in one byte becomes a double


def object_samples(data: bytes, shape: tuple[int, ...]) -> Iterator[Sample]:
    """Images and masses of a pickled object array.

    Read are, as they are or wrapped in arrays, tuples or lists of one element: an image; `[image, mass]`; an array
    whose elements are the pixels; and a sequence of images or of pairs, as several samples. The mass of the axion,
    in eV, is the target `axion_mass_ev`.

    Args:
        data: the pickle.
        shape: what the file declares for the outer array.
    Raises:
        UnusableImage: anything else; nothing has been executed.
    """
    root = read_pickle(data)
    if not isinstance(root, PickledArray) or root.shape != shape:
        raise UnusableImage(f"the pickle is not the array of shape {shape} that the file declares")
    spent = 0
    for pixels, targets in _found(root):
        # One image in the pickle may be listed a million times.
        spent += pixels.nbytes
        if spent > _MOST_EXPANSION * len(data):
            raise UnusableImage("pickle lists images of far more bytes than it has: refused")
        for sample in samples_of(array_pixels(pixels)):
            yield sample._replace(targets=targets)


def _found(value: object) -> Iterator[tuple[np.ndarray, dict[str, float]]]:
    value = _unwrapped(value)
    single = _one(value)
    if single is not None:
        yield single
        return
    for part in _elements(value) or ():
        single = _one(_unwrapped(part))
        if single is None:
            raise UnusableImage("object array holds something that is neither an image nor [image, mass]")
        yield single
    if not _elements(value):
        raise UnusableImage("object array holds no image")


def _unwrapped(value: object) -> object:
    """Without arrays, tuples and lists of one element around it."""
    for _ in range(_DEEPEST_WRAP):
        elements = _elements(value)
        if elements is None or len(elements) != 1 or _pixels(value) is not None:
            break
        value = elements[0]
    return value


def _one(value: object) -> tuple[np.ndarray, dict[str, float]] | None:
    """Pixels and targets if `value` is one image, with a mass or without."""
    pixels = _pixels(value)
    if pixels is not None:
        return pixels, {}
    elements = _elements(value)
    if elements is None or len(elements) != 2:
        return None
    pixels, mass = _pixels(_unwrapped(elements[0])), _number(elements[1])
    return None if pixels is None or mass is None else (pixels, {AXION_MASS: mass})


def _elements(value: object) -> list[object] | tuple[object, ...] | None:
    """The parts of an object array along its first axis, or of a list or tuple; None if it is neither."""
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, PickledArray) or not isinstance(value.values, list):
        return None
    if len(value.shape) < 2 or not value.values:
        return value.values
    width = len(value.values) // value.shape[0]
    return [value.values[i : i + width] for i in range(0, len(value.values), width)]


def _pixels(value: object) -> np.ndarray | None:
    """A numeric array of two axes or more, also where every pixel is a Python number."""
    if not isinstance(value, PickledArray) or len(value.shape) < 2:
        return None
    if isinstance(value.values, np.ndarray):
        return value.values
    numbers = [float(item) for item in value.values or () if isinstance(item, int | float)]
    if not numbers or len(numbers) != math.prod(value.shape):
        return None
    return np.array(numbers).reshape(value.shape)


def _number(value: object) -> float | None:
    value = _unwrapped(value)
    if isinstance(value, PickledArray) and isinstance(value.values, np.ndarray) and value.values.size == 1:
        value = value.values.item()
    return float(value) if isinstance(value, int | float) else None
