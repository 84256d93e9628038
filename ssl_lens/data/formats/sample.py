"""What a reader gives: images and the numbers that a file holds next to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ssl_lens.errors import InputError


class UnusableImage(InputError):  # noqa: N818 (it names the state of the image)
    """An image that cannot be used; the message is the reason, to which whoever knows its name adds it: `Unusable`."""


class Sample(NamedTuple):
    """One image and what is known of it.

    Attributes:
        image: raw pixels in the file's units, float32 [C, H, W], native byte order, contiguous. NaN stays NaN.
        stored: type of the pixels in the file.
        targets: numbers that the file holds next to the image, by name with unit, such as `axion_mass_ev`.
        name: of the image within an archive; None where its place in the file is all there is.
        label: its class, where the file says so.
        left_out: names of the planes of its file that are not in it.
        noise: standard deviation of the noise of each channel [C], in the file's units, where a plane says it.
    """

    image: np.ndarray
    stored: np.dtype
    targets: Mapping[str, float] = MappingProxyType({})
    name: str | None = None
    label: str | None = None
    left_out: tuple[str, ...] = ()
    noise: np.ndarray | None = None
