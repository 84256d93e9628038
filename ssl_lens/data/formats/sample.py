"""What a reader gives: images and the numbers that a file holds beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_lens.errors import InputError


class UnreadableImage(InputError):  # noqa: N818 (it names the state of the file)
    """A file that holds no readable image; the message is the reason, without the file's name."""


class Sample(NamedTuple):
    """One image and what is known of it.

    Attributes:
        image: raw pixels in the file's units, float32 [C, H, W], native byte order, contiguous. NaN stays NaN.
        targets: numbers that the file holds beside the image, by name with unit, such as `axion_mass_ev`.
    """

    image: np.ndarray
    targets: dict[str, float]
