"""JPEG and PNG pictures, through Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from ssl_lens.data.formats.layout import array_pixels, samples_of
from ssl_lens.data.formats.limits import check_expansion
from ssl_lens.data.formats.sample import Sample, UnusableImage

SUFFIXES = (".jpg", ".jpeg", ".png")


def read_picture(file: BinaryIO, size: int) -> Iterator[Sample]:
    """Reads a JPEG or PNG of 8-bit grey or colour, or 16-bit grey; transparency is dropped, palettes are resolved."""
    with Image.open(file, formats=("JPEG", "PNG")) as picture:  # of any other, EPS would run a program
        check_expansion(picture.width * picture.height * len(picture.getbands()), size, "picture")
        yield from samples_of(array_pixels(picture_array(picture)))


def picture_array(picture: ImageFile.ImageFile) -> np.ndarray:
    """Decodes the current frame of a picture: HW or HWC.

    Raises: UnusableImage if it has more pixels than Pillow's limit, or if Pillow would drop bits of it.
    """
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and picture.width * picture.height > most:  # Pillow itself only warns up to twice that
        raise UnusableImage(f"picture of {picture.width}x{picture.height} pixels; at most {most} are decoded")
    if picture.mode in ("RGB", "RGBA", "LA") and any("16" in str(tile.args) for tile in picture.tile):
        raise UnusableImage("16-bit colour would be cut to 8 bits; save it as TIFF, FITS or .npy")
    if picture.mode in ("L", "RGB", "F", "I") or picture.mode.startswith("I;16"):
        return np.asarray(picture)
    # Transparency and palettes are not channels of the sky.
    return np.asarray(picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB"))
