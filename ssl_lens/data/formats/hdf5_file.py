"""HDF5 through h5py: datasets of the file itself; nothing is followed out of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import h5py

from ssl_lens.data.formats.layout import Pixels
from ssl_lens.data.formats.limits import check_expansion
from ssl_lens.data.formats.named_arrays import Array, read_arrays
from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.formats.sample import Sample, UnusableImage

SUFFIXES = (".h5", ".hdf5")
_CHUNK_CACHE = 16 << 20  # bytes: a chunk that holds many images is unpacked once


def read_hdf5(file: BinaryIO, size: int, choice: PlaneChoice) -> Iterator[Sample]:
    """Reads the image dataset of an HDF5 file, one image at a time, with the labels next to it: see `planes`.

    External and soft links, virtual datasets, datasets stored in other files, and declared shapes far beyond the
    stored bytes are refused before anything is read.
    """
    with h5py.File(file, "r", rdcc_nbytes=_CHUNK_CACHE) as root:
        arrays = {
            name: Array(dataset.shape, partial(_pixels, dataset, name)) for name, dataset in _datasets(root).items()
        }
        yield from read_arrays(arrays, choice, what="dataset")


def _pixels(dataset: h5py.Dataset, name: str) -> Pixels:
    _check(dataset, name)
    return Pixels(dataset.shape, dataset.dtype, lambda i: dataset[()] if i is None else dataset[i])


def _datasets(root: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item
        elif isinstance(item, h5py.Group):
            _refuse_links(item)

    _refuse_links(root)
    root.visititems(visit)  # follows hard links only, each object once
    return found


def _refuse_links(group: h5py.Group) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "external" if isinstance(link, h5py.ExternalLink) else "soft"
            raise UnusableImage(f"HDF5 {kind} link {name}; links are not followed: copy the data into the file")


def _check(dataset: h5py.Dataset, name: str) -> None:
    if dataset.is_virtual or dataset.external:
        raise UnusableImage(f"HDF5 dataset {name} lies in other files; copy the data into the file")
    if dataset.shape is None:
        raise UnusableImage(f"HDF5 dataset {name} is empty")
    stored = dataset.id.get_storage_size()
    check_expansion(math.prod(dataset.shape) * dataset.dtype.itemsize, stored, f"HDF5 dataset {name}")
    if dataset.chunks:  # a chunk is unpacked whole, and may be larger than its dataset
        check_expansion(math.prod(dataset.chunks) * dataset.dtype.itemsize, stored, f"a chunk of HDF5 dataset {name}")
