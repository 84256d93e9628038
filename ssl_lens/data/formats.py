"""One image file to one float32 array [C, H, W]: NumPy, JPEG, PNG and FITS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from PIL import Image

from ssl_lens.errors import InputError

SUFFIXES = (".npy", ".npz", ".jpg", ".jpeg", ".png", ".fits", ".fits.gz")
_MOST_CHANNELS = 16


class UnreadableImage(InputError):  # noqa: N818 (it names the state of the file)
    """A file that holds no readable image; the message is the reason, without the file's name."""


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image: by its suffix, in any case, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def read_image(path: Path) -> np.ndarray:
    """Reads one image file.

    Args:
        path: file with one of `SUFFIXES`.
    Returns:
        Raw pixels in the file's units, float32 [C, H, W], native byte order, contiguous, writeable. NaN stays NaN.
    Raises:
        UnreadableImage: damaged file, no numeric image in it, or a shape that is no HW, CHW or HWC.
    """
    try:
        pixels = _read_pixels(path)
    except InputError:
        raise
    except Exception as error:  # damaged files make the libraries raise far more than OSError and ValueError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(reason) from error
    if pixels.dtype.kind not in "biuf":
        raise UnreadableImage(f"pixels are of type {pixels.dtype}, not real numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which `load_images` reports
        return np.array(_channels_first(pixels), dtype=np.float32, order="C")


def _read_pixels(path: Path) -> np.ndarray:
    name = path.name.lower()
    # Files are opened here and below, because np.load and fits.open leave damaged ones open.
    if name.endswith(".npy"):
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False)
    if name.endswith(".npz"):
        return _read_npz(path)
    if name.endswith((".jpg", ".jpeg", ".png")):
        return _read_picture(path)
    if name.endswith((".fits", ".fits.gz")):
        return _read_fits(path)
    raise UnreadableImage(f"file type of {path.name} is unknown; known are {' '.join(SUFFIXES)}")


def _read_npz(path: Path) -> np.ndarray:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if "image" in archive.files:
            return archive["image"]
        if len(archive.files) != 1:
            raise UnreadableImage(f"arrays {archive.files} in the file; needed is one array, or one named 'image'")
        return archive[archive.files[0]]


def _read_picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.mode in ("L", "RGB", "F", "I") or picture.mode.startswith("I;16"):
            return np.asarray(picture)
        # Transparency and palettes are no channels of the sky.
        return np.asarray(picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB"))


def _read_fits(path: Path) -> np.ndarray:
    with path.open("rb") as file, fits.open(file, memmap=False) as units:
        for unit in units:
            if unit.is_image and unit.data is not None and unit.data.ndim >= 2:
                return unit.data
        raise UnreadableImage(f"none of the {len(units)} FITS header-data units holds an image")


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """HW, CHW or HWC to CHW: the channel axis is at most 16 long and at most half of both others."""
    while pixels.ndim > 3 and pixels.shape[0] == 1:  # degenerate FITS axes
        pixels = pixels[0]
    if pixels.size == 0 or pixels.ndim not in (2, 3):
        raise UnreadableImage(f"array of shape {pixels.shape} is no image; needed is HW, CHW or HWC")
    if pixels.ndim == 2:
        return pixels[None]

    def is_channel_axis(axis: int) -> bool:
        others = [length for other, length in enumerate(pixels.shape) if other != axis]
        return pixels.shape[axis] <= min(_MOST_CHANNELS, min(others) // 2)

    if is_channel_axis(0):
        return pixels
    if is_channel_axis(2):
        return np.moveaxis(pixels, 2, 0)
    raise UnreadableImage(
        f"no axis of shape {pixels.shape} can be the channels; "
        f"needed is CHW or HWC with at most {_MOST_CHANNELS} channels, fewer than half the pixels of a side"
    )
