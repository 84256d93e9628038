"""NumPy's .npy and .npz; object arrays are read by `object_array`, and no pickle is ever executed."""

from __future__ import annotations

import math
import threading
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import IO, Literal

import numpy as np

from ssl_lens.data.formats.inert_pickle import PickledArray, read_pickle
from ssl_lens.data.formats.layout import Pixels, samples_of
from ssl_lens.data.formats.limits import check_complete, check_expansion
from ssl_lens.data.formats.named_arrays import Array, read_arrays
from ssl_lens.data.formats.object_array import object_samples
from ssl_lens.data.formats.plane_names import kind_of
from ssl_lens.data.formats.planes import PlaneChoice
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
    yield from samples_of(_pixels(file, size, shape, fortran_order, dtype))


def _pixels(file: IO[bytes], size: int, shape: tuple[int, ...], fortran_order: bool, dtype: np.dtype) -> Pixels:
    """The array of a file that stands behind its header."""
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

    return Pixels(shape, dtype, read)


def read_npz(file: IO[bytes], size: int, choice: PlaneChoice) -> Iterator[Sample]:
    """Reads the image array of a .npz file, with the labels next to it: see `planes`."""
    with zipfile.ZipFile(file) as archive, ExitStack() as opened:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = {}
        for name, info in members.items():
            with archive.open(info) as member:
                shape, _, dtype = _header(member)
            asked = not choice.planes or name in choice.planes
            if dtype.hasobject and asked and (len(members) == 1 or kind_of(name) == "flux"):
                check_expansion(info.file_size, info.compress_size, f"array {info.filename}")
                yield from read_npy(opened.enter_context(archive.open(info)), info.file_size)
                return
            arrays[name] = Array(shape, partial(_member, archive, info, opened))
        yield from read_arrays(arrays, choice, what="array")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, opened: ExitStack) -> Pixels:
    check_expansion(info.file_size, info.compress_size, f"array {info.filename}")
    member = opened.enter_context(archive.open(info))
    shape, fortran_order, dtype = _header(member)
    if dtype.hasobject:  # such as labels
        objects = read_pickle(member.read())
        values = objects.values if isinstance(objects, PickledArray) and isinstance(objects.values, list) else []
        return Pixels(shape, dtype, lambda i: np.array(values, dtype).reshape(shape))
    return _pixels(member, info.file_size, shape, fortran_order, dtype)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    with _ONE_AT_A_TIME:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file, max_header_size=_LONGEST_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file, max_header_size=_LONGEST_HEADER)
    raise UnusableImage(f".npy format {version[0]}.{version[1]} holds records, not real numbers")
