"""FITS, plain, gzipped and tile-compressed, through astropy; whatever is stored becomes native float32."""

from __future__ import annotations

import gzip
import io
import math
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from astropy.io import fits

from ssl_lens.data.formats.fits_structure import check_units
from ssl_lens.data.formats.layout import MOST_CHANNELS, Pixels
from ssl_lens.data.formats.limits import check_complete, check_expansion, most_bytes
from ssl_lens.data.formats.plane_images import read_planes
from ssl_lens.data.formats.plane_names import Kind, Noise, is_harmless_bit, kind_of, noise_kind
from ssl_lens.data.formats.planes import Plane, PlaneChoice
from ssl_lens.data.formats.sample import Sample, UnusableImage

SUFFIXES = tuple(stem + pack for stem in (".fits", ".fit", ".fts") for pack in ("", ".gz", ".fz"))
_MOST_UNPACKED = 512 << 20  # bytes of a .fits.gz, which is held in memory
_NO_NAMES = ("PRIMARY", "COMPRESSED_IMAGE")  # what astropy and cfitsio call a unit that has no name
# What HDUCLAS2 (ESO) or EXTTYPE (LSST, HSC) say of a unit; HDUCLAS3 says which error it is.
_FLUX_CLASSES, _OTHER_CLASSES = ("DATA", "IMAGE"), ("ERROR", "QUALITY", "MASK", "VARIANCE")

_SQUARED = re.compile(r"(?:1 ?/ ?)?(?:[A-Za-z]+|\(.+\)) ?(?:\*\*|\^)? ?\(?[+-]?2\)?")  # nJy**2, adu2, (MJy/sr)^-2


def read_fits(file: BinaryIO, size: int, choice: PlaneChoice) -> Iterator[Sample]:
    """Reads the image units of a FITS file, of those the planes that are chosen or known to be flux: see `planes`."""
    if file.read(2) == b"\x1f\x8b":
        file = _unpacked(file, size)
        size = file.getbuffer().nbytes
    count = check_units(file, size)
    file.seek(0)
    with fits.open(file, memmap=False) as units:
        images, planes = [], []
        for number, unit in enumerate(_each(units, count)):  # each is checked before astropy looks for the next
            if unit.is_image and len(unit.shape) >= 2:
                _check_size(unit, size)
                images.append(unit)
                planes.append(_plane(number, unit))
        if not images:
            raise UnusableImage(f"none of the {count} FITS header-data units holds an image")
        yield from read_planes(planes, lambda i: _pixels(images[i]), choice, what="plane", ordered=True)


def _each(units: fits.HDUList, count: int) -> Iterator[fits.ImageHDU]:
    for number in range(count):
        try:
            yield units[number]
        except IndexError:  # astropy warned, and takes those before for all
            raise UnusableImage(f"FITS unit {number} of {count} has a header that cannot be read: damaged") from None


def _pixels(unit: fits.ImageHDU) -> Pixels:
    """A cube is read plane by plane."""
    stored = np.dtype(fits.BITPIX2DTYPE[unit.header["BITPIX"]])
    return Pixels(unit.shape, stored, lambda i: unit.section[...] if i is None else unit.section[i])


def _plane(number: int, unit: fits.ImageHDU) -> Plane:
    name = "" if unit.name in _NO_NAMES else unit.name
    shape, kind = _without_degenerate(unit.shape), _kind(unit, name)
    return Plane(name, number, shape, kind, _channel_names(unit), _noise(unit, name), _bad_bits(unit))


def _without_degenerate(shape: tuple[int, ...]) -> tuple[int, ...]:
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _kind(unit: fits.ImageHDU, name: str) -> Kind:
    """By its name, else its class, else its unit: a squared or an inverse one is that of a variance or a weight."""
    classes = [str(unit.header.get(key, "")).strip().upper() for key in ("HDUCLAS2", "EXTTYPE")]
    if any(of in _OTHER_CLASSES for of in classes):
        return "other"
    if (kind := kind_of(name)) != "unknown":
        return kind
    if any(of in _FLUX_CLASSES for of in classes):
        return "flux"
    return "other" if _SQUARED.fullmatch(str(unit.header.get("BUNIT", "")).strip()) else "unknown"


def _noise(unit: fits.ImageHDU, name: str) -> Noise | None:
    texts = (*(str(unit.header.get(key, "")) for key in ("HDUCLAS3", "EXTTYPE")), name)
    return next((kind for text in texts if (kind := noise_kind(text)) is not None), None)


def _bad_bits(unit: fits.ImageHDU) -> int | None:
    """Of a mask whose header names its bits, as those of LSST and HSC (MP_SAT = 1), the bad ones; None if unnamed."""
    named = {key: unit.header[key] for key in unit.header if key.startswith("MP_")}
    for key, bit in named.items():
        if type(bit) is not int or not 0 <= bit < 63:
            raise UnusableImage(f"{key}={bit!r:.50} is not the number of a bit of a mask: damaged")
    return sum({1 << bit for key, bit in named.items() if not is_harmless_bit(key[3:])}) if named else None


def _channel_names(unit: fits.ImageHDU) -> tuple[str, ...]:
    """Of a cube whose header names its bands: BANDS = 'grz', or BAND0, BAND1, ... (Legacy Surveys)."""
    count = unit.shape[0] if len(unit.shape) == 3 else 0
    bands = str(unit.header.get("BANDS", "")).strip()
    if count and len(bands) == count:
        return tuple(bands)
    names = tuple(str(unit.header.get(f"BAND{i}", "")).strip() for i in range(min(count, MOST_CHANNELS)))
    return names if all(names) and len(set(names)) == count else ()


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
