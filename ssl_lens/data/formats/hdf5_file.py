"""HDF5 through h5py: datasets of the file itself; nothing is followed out of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO

import h5py

from ssl_lens.data.formats.layout import Pixels
from ssl_lens.data.formats.limits import check_complete, check_deflated, check_expansion
from ssl_lens.data.formats.named_arrays import Array, read_arrays
from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.formats.sample import Sample, UnusableImage

SUFFIXES = (".h5", ".hdf5")
_GZIP = 1
_FILTERS = (_GZIP, 2, 3, 4, 32000)  # shuffle, Fletcher's sums, szip, lzf
_FIRST_PLUGIN = 256  # of filters that others registered, which work where they are installed
_SUM = 4  # bytes of a checksum behind a chunk, which HDF5 takes away without a look
_SMALL = 1 << 16  # bytes of a chunk that cannot expand to much
_CHUNK_CACHE = 16 << 20  # bytes: a chunk that holds many images is unpacked once


def read_hdf5(file: BinaryIO, size: int, choice: PlaneChoice) -> Iterator[Sample]:
    """Reads the image dataset of an HDF5 file, one image at a time, with the labels next to it: see `planes`.

    External and soft links, virtual datasets, datasets stored in other files, and declared shapes far beyond the
    stored bytes are refused before anything is read.
    """
    with h5py.File(file, "r", rdcc_nbytes=_CHUNK_CACHE) as root:
        arrays = {
            name: Array(dataset.shape, partial(_pixels, dataset, name, size))
            for name, dataset in _datasets(root).items()
        }
        yield from read_arrays(arrays, choice, what="dataset")


def _pixels(dataset: h5py.Dataset, name: str, size: int) -> Pixels:
    _check(dataset, name, size)
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


def _check(dataset: h5py.Dataset, name: str, size: int) -> None:
    if dataset.is_virtual or dataset.external:
        raise UnusableImage(f"HDF5 dataset {name} lies in other files; copy the data into the file")
    if dataset.shape is None:
        raise UnusableImage(f"HDF5 dataset {name} is empty")
    stored = dataset.id.get_storage_size()
    check_expansion(math.prod(dataset.shape) * dataset.dtype.itemsize, stored, f"HDF5 dataset {name}")
    if dataset.chunks:  # a chunk is unpacked whole, and may be larger than its dataset
        check_expansion(math.prod(dataset.chunks) * dataset.dtype.itemsize, stored, f"a chunk of HDF5 dataset {name}")
        _check_chunks(dataset, f"a chunk of HDF5 dataset {name}", size)


def _check_chunks(dataset: h5py.Dataset, what: str, size: int) -> None:
    """Looks at the chunks before HDF5 unpacks them, which it does to whatever they hold, and without a look at sums."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    odd = [number for number in filters if number < _FIRST_PLUGIN and number not in _FILTERS]
    if odd:
        raise UnusableImage(f"{what} is packed by HDF5 filter {odd[0]}; pack it with gzip, lzf or szip")
    whole = math.prod(dataset.chunks) * dataset.dtype.itemsize
    places: list[Any] = []
    dataset.id.chunk_iter(places.append)  # an exception in here would be lost
    left = size
    for place in places:
        check_complete(place.size, min(size - place.byte_offset, left), what)
        left -= place.size
        if place.size <= _SUM if filters else place.size != whole:
            raise UnusableImage(f"{what} has {place.size} bytes, which should unpack to {whole}: damaged")
        if _GZIP in filters and place.size > _SMALL:
            packed = dataset.id.read_direct_chunk(place.chunk_offset)[1]
            check_deflated(packed, whole + _SUM, what)
