"""TIFF through tifffile, which keeps 16-bit colour and float pixels; what it cannot decompress goes through Pillow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image

from ssl_lens.data.formats.layout import Pixels, samples_of
from ssl_lens.data.formats.limits import check_expansion
from ssl_lens.data.formats.picture_file import picture_array
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.formats.tiff_structure import check_directories, check_parts

SUFFIXES = (".tif", ".tiff")
_WITHOUT_IMAGECODECS = (
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.LZMA,
)


def read_tiff(file: BinaryIO, size: int) -> Iterator[Sample]:
    """Reads a TIFF: 8-bit, 16-bit or float, grey or with samples per pixel.

    The pages that have the shape and type of the first are one array [pages, ...]: up to 16 grey pages are the
    channels of one image, more are images, and pages of colour are images (the rule of `layout`). Other pages, such
    as thumbnails and masks, are left out. Extra samples that are transparency are dropped.
    """
    check_directories(file, size)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        first = tiff.pages.first
        found = (page for page in tiff.pages if isinstance(page, tifffile.TiffPage))
        pages = [page for page in found if (page.shape, page.dtype) == (first.shape, first.dtype)]
        if first.dtype is None:
            raise UnusableImage("TIFF pixels are of an unknown type")
        check_expansion(math.prod(first.shape) * first.dtype.itemsize * len(pages), size, "TIFF")
        if not _decodable(first):
            yield from _through_pillow(file, [page.index for page in pages])
            return
        shape = _without_alpha(first, np.broadcast_to(np.zeros((), first.dtype), first.shape)).shape

        def read(i: int | None) -> np.ndarray:
            if i is None:
                return np.stack([_page(file, size, page) for page in pages])
            return _page(file, size, pages[i])

        yield from samples_of(Pixels((len(pages), *shape), first.dtype, read))


def _page(file: BinaryIO, size: int, page: tifffile.TiffPage) -> np.ndarray:
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    columns = page.tilewidth * page.tiledepth if page.is_tiled else page.imagewidth
    check_parts(
        file,
        size,
        zip(page.dataoffsets, page.databytecounts, strict=False),
        compression=page.compression,
        part_bytes=rows * columns * page.samplesperpixel * np.dtype(page.dtype).itemsize,
        page_bytes=page.nbytes,
    )
    return _without_alpha(page, page.asarray())


def _decodable(page: tifffile.TiffPage) -> bool:
    predictor = page.predictor in (1, 2)  # none or horizontal
    return page.compression in _WITHOUT_IMAGECODECS and predictor and page.photometric != tifffile.PHOTOMETRIC.PALETTE


def _without_alpha(page: tifffile.TiffPage, array: np.ndarray) -> np.ndarray:
    """Drops the transparency that a page declares, always its last sample."""
    is_alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)
    if not is_alpha or array.ndim != 3:
        return array
    return array[:-1] if page.axes.startswith("S") else array[..., :-1]


def _through_pillow(file: BinaryIO, pages: list[int]) -> Iterator[Sample]:
    file.seek(0)
    with Image.open(file, formats=("TIFF",)) as picture:

        def frame(i: int) -> np.ndarray:
            picture.seek(pages[i])
            return picture_array(picture)

        first = frame(0)
        whole = Pixels(
            (len(pages), *first.shape),
            first.dtype,
            lambda i: np.stack([frame(j) for j in range(len(pages))]) if i is None else frame(i),
        )
        yield from samples_of(whole)
