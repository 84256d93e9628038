"""How images become pictures: which row is at the top, and which channels are red, green and blue.

A picture (PNG, JPEG, TIFF) is drawn as any viewer shows it: its first row at the top, its channels red, green and blue.
Arrays, FITS files among them, are drawn as astronomers do: the first row at the bottom, and channels ordered by
wavelength, so that the last is red, the first blue, and the middle one green.
"""

from __future__ import annotations

import numpy as np

from ssl_lens.errors import InputError


def drawable(image: np.ndarray, *, picture: bool, rgb: tuple[int, int, int] | None = None) -> np.ndarray:
    """The channels to draw of an image [C, H, W], its top row first: red, green and blue [3, H, W], or grey [1, H, W].

    Of two channels the first is drawn, in grey.

    Args:
        picture: whether it comes from a PNG, JPEG or TIFF.
        rgb: the channels to draw as red, green and blue, whatever the image is.

    Raises: InputError if there is no such channel.
    """
    chosen = image[list(shown_channels(len(image), picture=picture, rgb=rgb))]
    return chosen if picture else chosen[:, ::-1]


def shown_channels(channels: int, *, picture: bool, rgb: tuple[int, int, int] | None = None) -> tuple[int, ...]:
    """Which of `channels` are drawn as red, green and blue, or the one that is drawn in grey; as `drawable`."""
    if rgb is not None:
        if not 0 <= min(rgb) <= max(rgb) < channels:
            asked, last = " ".join(map(str, rgb)), channels - 1
            raise InputError(f"rgb={asked} names a channel that the images do not have; give three of 0 to {last}")
        return rgb
    if channels < 3:
        return (0,)
    return (0, 1, 2) if picture else (channels - 1, channels // 2, 0)
