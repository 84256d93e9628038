"""The directories of a TIFF file, walked before tifffile sees them, and how far its compressed parts expand.

Tifffile follows directories for as long as one names another, and unpacks a part to whatever it holds.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from ssl_lens.data.formats.limits import check_complete, check_deflated, check_expansion
from ssl_lens.data.formats.sample import UnusableImage

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INNER = (34665, 34853, 40965)  # EXIF and its like: one more directory each
# Of microscopes, in whose tables tifffile would loop.
_MICROSCOPES = (33471, 33560, 33628, 33629, 33630, 33631, 34118, 34361, 34362, 34412, 34680, 34682, 37706, 43314)
_READ_AGAIN = 4  # times the file's size: pages may share values
_DEFLATE, _LZMA = (8, 32946), 34925  # compressions
_LZMA_MEMORY = 128 << 20  # bytes


class _Form(NamedTuple):
    """How directories are written: of the classic form, or of BigTIFF."""

    number: struct.Struct  # of tags
    tag: struct.Struct  # number, type, count, value or where it lies
    offset: struct.Struct


def check_directories(file: BinaryIO, size: int) -> None:
    """Walks the directories of a TIFF of `size` bytes.

    Raises: UnusableImage if they name each other in a circle, reach beyond the file, or are larger than it together.
    """
    form, offset = _start(file)
    seen: set[int] = set()
    inner: list[int] = []
    left = _READ_AGAIN * size
    while offset or inner:
        of_pages = bool(offset)
        offset = offset or inner.pop()
        if offset in seen:
            raise UnusableImage(f"TIFF directories name the one at byte {offset} again and again: damaged")
        seen.add(offset)
        tags, following = _directory(file, offset, size, form)
        for number, kind, count, value in form.tag.iter_unpack(tags):
            if number in _MICROSCOPES:
                raise UnusableImage(f"TIFF has tag {number}, of a microscope's own format; save it as a plain TIFF")
            (place,) = form.offset.unpack(value)
            declared = count * _TYPE_BYTES.get(kind, 0)
            if declared > form.offset.size:
                check_complete(declared, size - place, f"TIFF tag {number}")
            if number in _INNER and of_pages:
                inner.append(place)
            left -= form.tag.size + declared
            if left < 0:
                raise UnusableImage(f"TIFF directories hold more bytes than the {size} of the file: damaged")
        offset = following if of_pages else 0


def check_parts(
    file: BinaryIO, size: int, places: Iterable[tuple[int, int]], *, compression: int, part_bytes: int, page_bytes: int
) -> None:
    """Looks at the strips or tiles of a page before they are unpacked.

    Args:
        places: where each begins, and how many bytes it has.
        part_bytes: to which one unpacks; page_bytes: all together.

    Raises: UnusableImage if one lies outside the file or expands further, or all are larger than file and page.
    """
    check_expansion(part_bytes, size, "a tile of the TIFF")  # unpacked whole, it may be larger than its page
    left = size + page_bytes
    for start, length in places:
        check_complete(length, min(size - start, left), "a part of the TIFF")
        left -= length
        if compression not in _DEFLATE and compression != _LZMA:
            continue
        file.seek(start)
        data = file.read(length)
        if compression in _DEFLATE:
            check_deflated(data, part_bytes, "a part of the TIFF")
        elif len(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY).decompress(data, part_bytes + 1)) > part_bytes:
            raise UnusableImage(f"a part of the TIFF expands to more than its {part_bytes} bytes: damaged")


def _start(file: BinaryIO) -> tuple[_Form, int]:
    """The form of a file's directories, and where the first lies."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else None
    if version == 42:
        form = _Form(struct.Struct(f"{order}H"), struct.Struct(f"{order}HHI4s"), struct.Struct(f"{order}I"))
        return form, form.offset.unpack(head[4:8])[0]
    if version == 43 and len(head) == 16:
        form = _Form(struct.Struct(f"{order}Q"), struct.Struct(f"{order}HHQ8s"), struct.Struct(f"{order}Q"))
        return form, form.offset.unpack(head[8:16])[0]
    raise UnusableImage("not a TIFF file: it begins otherwise")


def _directory(file: BinaryIO, offset: int, size: int, form: _Form) -> tuple[bytes, int]:
    """The bytes of a directory's tags, and where the next directory lies."""
    what = f"TIFF directory at byte {offset}"
    check_complete(form.number.size, size - offset, what)
    file.seek(offset)
    (count,) = form.number.unpack(file.read(form.number.size))
    check_complete(form.number.size + count * form.tag.size + form.offset.size, size - offset, what)
    return file.read(count * form.tag.size), form.offset.unpack(file.read(form.offset.size))[0]
