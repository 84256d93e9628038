"""NumPy's .npy and .npz; object arrays are read by `object_array`, and no pickle is ever executed."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Iterator
from typing import IO, Literal

import numpy as np

from ssl_lens.data.formats.array_names import the_image_array
from ssl_lens.data.formats.layout import Pixels, samples_of
from ssl_lens.data.formats.limits import check_complete, check_expansion
from ssl_lens.data.formats.object_array import object_samples
from ssl_lens.data.formats.sample import Sample, UnusableImage

NPY_SUFFIXES = (".npy",)
NPZ_SUFFIXES = (".npz",)
_LONGEST_HEADER = 10_000  # NumPy's own limit
_ONE_AT_A_TIME = threading.Lock()  # Python 3.11 counts the depth of its parser for all threads: a rare, wrong error


def read_npy(file: IO[bytes], size: int) -> Iterator[Sample]:
    """Reads a .npy file of `size` bytes from its start: an array by the rule of `layout`, or an object array.

    A stack in C order is read one image at a time; one in Fortran order is read whole.
    """
    shape, fortran_order, dtype = _header(file)
    if dtype.hasobject:
        yield from object_samples(file.read(), shape)
        return
    declared = math.prod(shape) * dtype.itemsize
    check_complete(declared, size - file.tell(), "array")

    def part(of_shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
        count = math.prod(of_shape)
        data = file.read(count * dtype.itemsize)
        check_complete(count * dtype.itemsize, len(data), "array")
        return np.frombuffer(data, dtype, count).reshape(of_shape, order=order)

    whole: list[np.ndarray] = []

    def read(i: int | None) -> np.ndarray:
        if i is not None and not fortran_order:
            return part(shape[1:], "C")
        if not whole:
            whole.append(part(shape, "F" if fortran_order else "C"))
        return whole[0] if i is None else whole[0][i]

    yield from samples_of(Pixels(shape, dtype, read))


def read_npz(file: IO[bytes], size: int) -> Iterator[Sample]:
    """Reads the image array of a .npz file: its only one, or the one named image, images or data."""
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        info = members[the_image_array(list(members), "array")]
        check_expansion(info.file_size, info.compress_size, f"array {info.filename}")
        with archive.open(info) as member:
            yield from read_npy(member, info.file_size)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    with _ONE_AT_A_TIME:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file, max_header_size=_LONGEST_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file, max_header_size=_LONGEST_HEADER)
    raise UnusableImage(f".npy format {version[0]}.{version[1]} holds records, not real numbers")
