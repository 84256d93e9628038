"""Which axes of an array are images, channels and pixels: one rule for all formats, decided by the shape alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ssl_lens.data.formats.sample import Sample, UnusableImage

MOST_CHANNELS = 16


class Pixels(NamedTuple):
    """An array in a file, not yet read.

    Attributes:
        shape: its axes, any number.
        dtype: of its elements.
        read: `read(None)` gives all of it, `read(i)` the i-th part along the first axis; called for 0, 1, 2, ... or
            for None, once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int | None], np.ndarray]


def array_pixels(array: np.ndarray) -> Pixels:
    """An array in memory as `Pixels`."""
    return Pixels(array.shape, array.dtype, lambda i: array if i is None else array[i])


def samples_of(pixels: Pixels) -> Iterator[Sample]:
    """The images of an array, read one at a time.

    - [H, W], [C, H, W] and [H, W, C] are one image. Channels are at most 16 and at most half of a side.
    - [N, C, H, W] and [N, H, W, C] are N images.
    - [N, H, W] with more than 16 planes is N images; fewer planes are channels (for few images give [N, 1, H, W]).
    - The images of a stack are at most twice as long as wide. Leading axes of length 1 are dropped.

    Raises: UnusableImage for another shape or type, before a pixel is read.
    """
    if pixels.dtype.kind not in "biuf":
        raise UnusableImage(f"pixels are of type {pixels.dtype}, not real numbers")
    if not is_stack(pixels.shape):
        yield Sample(image_of(pixels.read(None)), pixels.dtype)
        return
    for i in range(pixels.shape[0]):
        yield Sample(image_of(pixels.read(i)), pixels.dtype)


def count_of(shape: tuple[int, ...]) -> int:
    """How many images `samples_of` gives for an array of this shape.

    Raises: UnusableImage for a shape that is not an image.
    """
    return shape[0] if is_stack(shape) else 1


def image_of(array: np.ndarray) -> np.ndarray:
    """One image of HW, CHW or HWC as float32 [C, H, W].

    Raises: UnusableImage for another shape.
    """
    while array.ndim > 3 and array.shape[0] == 1:  # degenerate FITS axes
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    elif _channel_axis(array.shape) == 2:
        array = np.moveaxis(array, 2, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes inf or NaN, which are masked
        return np.array(array, dtype=np.float32, order="C")


def is_stack(shape: tuple[int, ...]) -> bool:
    """Whether an array is many images; raises UnusableImage if it is neither one nor many."""
    one = shape
    while len(one) > 3 and one[0] == 1:
        one = one[1:]
    if 0 in shape or not 2 <= len(one) <= 4:
        raise UnusableImage(
            f"array of shape {shape} is not an image; needed is HW, CHW, HWC or a stack NCHW, NHWC, NHW"
        )
    if len(one) == 2 or _channel_axis(one) is not None:
        return False
    planes = len(one) == 3 and one[0] > MOST_CHANNELS
    if one == shape and (planes or _channel_axis(shape[1:]) is not None):
        axis = None if planes else _channel_axis(shape[1:])
        height, width = (length for i, length in enumerate(shape[1:]) if i != axis)
        if max(height, width) <= 2 * min(height, width):
            return True
    raise UnusableImage(
        f"no axis of shape {shape} can be the channels; needed is CHW, HWC, NCHW or NHWC with at most "
        f"{MOST_CHANNELS} channels, fewer than half the pixels of a side, or NHW with more planes than that"
    )


def _channel_axis(shape: tuple[int, ...]) -> int | None:
    """The channel axis of CHW or HWC: at most 16 long and at most half of both others."""
    if len(shape) != 3:
        return None
    for axis in (0, 2):
        others = [length for other, length in enumerate(shape) if other != axis]
        if shape[axis] <= min(MOST_CHANNELS, min(others) // 2):
            return axis
    return None
