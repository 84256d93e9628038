"""The images of a pack, read from disk when they are asked for."""

from __future__ import annotations

import math
import os
import weakref
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ssl_lens.errors import InputError
from ssl_lens.files import check_regular


class PackedImages:
    """Images in a .npy file of float32 [N, C, H, W] in C order, indexed like an array; nothing is kept in memory.

    A memory map of the same file counts every page that it ever touched as the process's own, so that training on a
    set larger than memory would seem to fill it; reads leave caching to the system alone, and are as fast.

    Args:
        path: of the .npy file; it stays open.
        index: the images that there are, in this order, [M]; all if None.

    Raises: InputError if the file is none of this kind, or shorter than it declares.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, path: Path, index: np.ndarray | None = None) -> None:
        self.path, self._index = path, index
        try:
            check_regular(path)
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                stored, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
                complete = os.fstat(file.fileno()).st_size == self._start + math.prod(stored) * dtype.itemsize
        except Exception as error:  # a forged header makes numpy raise anything
            raise InputError(f"{path} cannot be read ({error}); pack the images again") from None
        if version != (1, 0) or fortran_order or dtype != self.dtype or len(stored) != 4 or not complete:
            raise InputError(f"{path} is not a whole array of float32 [N, C, H, W]; pack the images again")
        self.shape = (len(index) if index is not None else stored[0], *stored[1:])
        self._stored = stored[0]
        self._bytes = math.prod(stored[1:]) * dtype.itemsize  # of an image
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    @property
    def nbytes(self) -> int:
        return len(self) * self._bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Image i [C, H, W], or those of a slice or of indices [M]: [M, C, H, W], a copy."""
        if isinstance(index, tuple):
            raise IndexError(f"{index}: give images alone, and take channels or pixels of what is read")
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._read(np.arange(start, stop, step))
        if isinstance(index, int | np.integer):
            return self._read(np.array([index]))[0]
        return self._read(np.asarray(index))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """All images in memory."""
        return self[:].astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[type, tuple[Path, np.ndarray | None]]:
        return PackedImages, (self.path, self._index)  # another process opens the file itself

    def subset(self, index: np.ndarray) -> PackedImages:
        """The images at `index` [M] in that order; no pixel is read."""
        return PackedImages(self.path, np.asarray(index) if self._index is None else self._index[index])

    def places(self) -> np.ndarray:
        """Where each image lies in the file, [N], counted from its first."""
        return np.arange(len(self)) if self._index is None else self._index

    def _read(self, index: np.ndarray) -> np.ndarray:
        if len(index) and not (-len(self) <= index.min() and index.max() < len(self)):
            raise IndexError(f"image {index.min()} or {index.max()} of {len(self)}")
        places = (index % max(len(self), 1)) if self._index is None else self._index[index]
        images = np.empty((len(places), *self.shape[1:]), self.dtype)
        buffer = images.reshape(-1).view(np.uint8).data
        if len(places) and (np.diff(places) == 1).all():  # one after the other
            self._fill(buffer, int(places[0]))
            return images
        for i, place in enumerate(places.tolist()):
            self._fill(buffer[i * self._bytes : (i + 1) * self._bytes], place)
        return images

    def _fill(self, buffer: memoryview, place: int) -> None:
        """Reads images from `place` on until the buffer is full."""
        offset = self._start + place * self._bytes
        while count := os.preadv(self._file, [buffer], offset):
            if count == len(buffer):
                return
            buffer, offset = buffer[count:], offset + count  # the system may read less than asked for
        raise InputError(f"{self.path} has become shorter since it was opened; pack the images again")


Images: TypeAlias = np.ndarray | PackedImages  # raw pixels [N, C, H, W], float32


def subset(images: Images, index: np.ndarray) -> Images:
    """The images at `index` [M] in that order: of an array a copy, of a file a view."""
    return images.subset(index) if isinstance(images, PackedImages) else images[index]
