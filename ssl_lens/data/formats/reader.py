"""One image file to its images: the reader of each format is found by the file's suffix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ssl_lens.data.formats import fits_file, hdf5_file, numpy_file, picture_file, tar_file, tiff_file
from ssl_lens.data.formats.plane_images import channels_by
from ssl_lens.data.formats.planes import EVERYTHING, PlaneChoice
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError
from ssl_lens.files import without_waiting

# A reader takes the file, open at its start, and its size in bytes; it yields samples and may raise anything.
_READERS = (
    (numpy_file.NPY_SUFFIXES, numpy_file.read_npy),
    (picture_file.SUFFIXES, picture_file.read_picture),
    (tiff_file.SUFFIXES, tiff_file.read_tiff),
)
_PLANE_READERS = (  # of formats whose planes have names: they take the choice as well
    (numpy_file.NPZ_SUFFIXES, numpy_file.read_npz),
    (fits_file.SUFFIXES, fits_file.read_fits),
    (hdf5_file.SUFFIXES, hdf5_file.read_hdf5),
)
MEMBER_SUFFIXES = tuple(  # of images within a tar
    suffix for suffixes, _ in (*_READERS, *_PLANE_READERS) for suffix in suffixes
)
SUFFIXES = (*MEMBER_SUFFIXES, *tar_file.SUFFIXES)

_WITHIN = re.compile(f"(.+?(?:{'|'.join(map(re.escape, SUFFIXES))}))#", re.IGNORECASE)
_LONGEST_REASON = 300  # characters; some libraries quote the file


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for images: by its suffix, in any case, and not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def is_picture(image: str, root: Path | None = None) -> bool:
    """Whether an image of this name comes from a picture, which has its first row at the top, and not from an array.

    Args:
        root: folder that the name is relative to, to look into a tar; None: those of a tar are taken for arrays.
    """
    file = file_of(image)
    if root is not None and file.lower().endswith(tar_file.SUFFIXES):
        file = tar_file.first_member(root / file, MEMBER_SUFFIXES)
    return file.lower().endswith((*picture_file.SUFFIXES, *tiff_file.SUFFIXES))


def file_of(image: str) -> str:
    """The file of an image that is called `file.npy#000012` or `file.tar#KEY`; other names are files themselves."""
    within = _WITHIN.match(image)
    return image if within is None else within.group(1)


def stem_of(file: str) -> str:
    """A file's path without an image's suffix, whole as `.fits.gz` is; other paths stay as they are."""
    suffixes = [suffix for suffix in SUFFIXES if file.lower().endswith(suffix)]
    return file[: -len(max(suffixes, key=len))] if suffixes else file


def read_images(path: Path, choice: PlaneChoice = EVERYTHING) -> Iterator[Sample | Unusable]:
    """Reads the images of one file, one at a time: memory stays at a few images, however many the file holds.

    Only a tar file gives `Unusable`.

    Args:
        path: file with one of `SUFFIXES`.
        choice: of the planes of the file, or of the channels where they have no names.
    Raises:
        UnusableImage: damaged or unreadable file, no numeric image in it, a shape that is not an image, planes of which
            nothing says which are the image, or far more declared than stored; also after some images, where the
            damage lies behind them.
    """
    if not os.path.isfile(path) and os.path.exists(path):
        raise UnusableImage("not a regular file")  # a pipe would be waited for
    try:
        file = open(path, "rb", opener=without_waiting)  # noqa: SIM115 (the generator closes it)
    except OSError as error:
        raise UnusableImage(error.strerror or type(error).__name__) from error
    with file:  # opened here, because the libraries leave damaged files open
        yield from images_in(file, path.name, choice)


def images_in(file: BinaryIO, name: str, choice: PlaneChoice = EVERYTHING) -> Iterator[Sample | Unusable]:
    """As `read_images`, from an open file that can seek, such as bytes of an archive; `name` says which format."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield from _read(file, name, size, choice)
    except InputError:
        raise
    except Exception as error:  # damaged files make the libraries raise far more than OSError and ValueError
        reason = " ".join(str(error)[:_LONGEST_REASON].split()) or type(error).__name__
        raise UnusableImage(reason) from error


def _read(file: BinaryIO, name: str, size: int, choice: PlaneChoice) -> Iterator[Sample | Unusable]:
    lower = name.lower()
    if lower.endswith(tar_file.SUFFIXES):
        decode = partial(images_in, choice=choice)
        yield from tar_file.read_tar(file, size, suffixes=MEMBER_SUFFIXES, decode=decode)
        return
    for suffixes, read_with_choice in _PLANE_READERS:
        if lower.endswith(suffixes):
            yield from read_with_choice(file, size, choice)
            return
    for suffixes, read in _READERS:
        if lower.endswith(suffixes):
            yield from (channels_by(choice, sample) for sample in read(file, size))
            return
    raise UnusableImage(f"file type of {name} is unknown; known are {' '.join(SUFFIXES)}")
