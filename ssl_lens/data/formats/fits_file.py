"""FITS, plain and gzipped, through astropy; scaled integers and big-endian numbers become native float32."""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ssl_lens.data.formats.fits_structure import check_units
from ssl_lens.data.formats.layout import Pixels, samples_of
from ssl_lens.data.formats.limits import check_complete, check_expansion, most_bytes
from ssl_lens.data.formats.sample import Sample, UnusableImage

SUFFIXES = (".fits", ".fits.gz")
_MOST_UNPACKED = 512 << 20  # bytes of a .fits.gz, which is held in memory
# Extensions of a science image that are not flux (HST, JWST, Euclid, Rubin, DESI).
_NO_FLUX = ("ERR", "DQ", "WHT", "CTX", "VAR", "IVAR", "RMS", "MASK", "FLAG", "WEIGHT", "PSF", "SAMP", "TIME")


def read_fits(file: BinaryIO, size: int) -> Iterator[Sample]:
    """Reads the image units of a FITS file.

    The first unit with an image decides; later units of its shape belong to it unless their name says that they are
    not flux (ERR, DQ, WHT, ...). Together they are one array [units, ...]: up to 16 planes, of a cube or of units, are
    the channels of one image, more are images (the rule of `layout`).
    """
    if file.read(2) == b"\x1f\x8b":
        file = _unpacked(file, size)
        size = file.getbuffer().nbytes
    count = check_units(file, size)
    file.seek(0)
    with fits.open(file, memmap=False) as units:
        images = []
        for unit in _each(units, count):  # each is checked before astropy looks for the next one behind it
            if unit.is_image and len(unit.shape) >= 2:
                _check_size(unit, size)
                images.append(unit)
        if not images:
            raise UnusableImage(f"none of the {count} FITS header-data units holds an image")
        same = [unit for unit in images[1:] if unit.shape == images[0].shape and not _is_no_flux(unit.name)]
        yield from samples_of(_pixels([images[0], *same]))


def _each(units: fits.HDUList, count: int) -> Iterator[fits.ImageHDU]:
    for number in range(count):
        try:
            yield units[number]
        except IndexError:  # astropy warned, and takes those before for all
            raise UnusableImage(f"FITS unit {number} of {count} has a header that cannot be read: damaged") from None


def _pixels(units: list[fits.ImageHDU]) -> Pixels:
    shape = units[0].shape
    stored = fits.BITPIX2DTYPE[units[0].header["BITPIX"]]
    if len(units) == 1:  # a cube is read plane by plane
        return Pixels(shape, np.dtype(stored), lambda i: units[0].data if i is None else units[0].section[i])
    return Pixels(
        (len(units), *shape),
        np.dtype(stored),
        lambda i: np.stack([unit.data for unit in units]) if i is None else units[i].section[...],
    )


def _is_no_flux(name: str) -> bool:
    return name.upper().rstrip("0123456789_").endswith(_NO_FLUX)


def _check_size(unit: fits.ImageHDU, size: int) -> None:
    """Refuses a unit that declares more than its file holds, before it is read."""
    declared = math.prod(unit.shape) * abs(unit.header["BITPIX"]) // 8
    what = f"FITS unit {unit.name or 'PRIMARY'}"
    if isinstance(unit, fits.CompImageHDU):
        check_expansion(declared, size, what)
    else:
        check_complete(declared, size - unit.fileinfo()["datLoc"], what)


def _unpacked(file: BinaryIO, size: int) -> io.BytesIO:
    file.seek(0)
    most = min(most_bytes(size), _MOST_UNPACKED)
    with gzip.GzipFile(fileobj=file) as packed:
        data = packed.read(most + 1)
    if len(data) > most:
        raise UnusableImage(f"{size} gzipped bytes expand to more than {most}; unpack the file with gunzip")
    return io.BytesIO(data)
