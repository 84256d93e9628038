"""TIFF files whose directories go in circles, or whose parts expand to more than a page."""

import io
import lzma
import struct
import zlib

import numpy as np
import pytest
import tifffile

from ssl_lens.data.formats.reader import images_in
from ssl_lens.data.formats.sample import UnusableImage

IMAGE = np.random.default_rng(0).integers(0, 250, (20, 24), dtype=np.uint8)


def written(**settings: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, IMAGE, **settings)
    return file.getvalue()


def read(data: bytes) -> list[np.ndarray]:
    return [sample.image for sample in images_in(io.BytesIO(data), "a.tif")]


def tag(number: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", number, kind, count, value)


def directory(*tags: bytes, following: int = 0) -> bytes:
    return struct.pack("<H", len(tags)) + b"".join(tags) + struct.pack("<I", following)


def of_one_part(compression: int, part: bytes, *, byte_count: int | None = None) -> bytes:
    """A page of 8 x 8 px in one strip, which lies behind the directory."""
    values = {256: 8, 257: 8, 258: 8, 259: compression, 262: 1, 273: 8 + 2 + 8 * 12 + 4, 278: 8}
    values[279] = len(part) if byte_count is None else byte_count
    tags = directory(*(tag(number, 4, 1, value) for number, value in values.items()))
    return b"II*\0" + struct.pack("<I", 8) + tags + part


def test_plain_parts_are_read():
    for compression, part in ((1, bytes(range(64))), (8, zlib.compress(bytes(range(64))))):
        np.testing.assert_array_equal(read(of_one_part(compression, part))[0], np.arange(64).reshape(1, 8, 8))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_directory_that_names_itself(big, byteorder):
    data = bytearray(written(bigtiff=big, byteorder=byteorder))
    np.testing.assert_array_equal(read(bytes(data))[0][0], IMAGE)
    number, each, width = ("Q", 20, "Q") if big else ("H", 12, "I")
    (start,) = struct.unpack_from(byteorder + width, data, 8 if big else 4)
    (count,) = struct.unpack_from(byteorder + number, data, start)
    struct.pack_into(byteorder + width, data, start + struct.calcsize(number) + count * each, start)
    with pytest.raises(UnusableImage, match=f"^TIFF directories name the one at byte {start} again and again"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([tag(270, 2, 1 << 31, 8)], "TIFF tag 270 declares 2147483648 bytes but 18 are there"),
        ([tag(270, 2, 10, 1 << 31)], "TIFF tag 270 declares 10 bytes but 0 are there"),
        ([tag(33629, 5, 1, 8)], "TIFF has tag 33629, of a microscope's own format; save it as a plain TIFF"),
        ([tag(34665, 4, 1, 9_000)], "TIFF directory at byte 9000 declares 2 bytes but 0 are there"),
        ([tag(270, 2, 100, 8)] * 20, "TIFF directories hold more bytes than the 254 of the file"),
    ],
)
def test_tags_that_reach_out_of_the_file(tags, message):
    with pytest.raises(UnusableImage, match=message):
        read(b"II*\0" + struct.pack("<I", 8) + directory(*tags))


@pytest.mark.parametrize("head", [b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0+\0\x08\0\0", b"PK\x03\x04" * 4])
def test_a_head_without_more(head):
    with pytest.raises(UnusableImage, match="not a TIFF file|but 0 are there"):
        read(head)


def test_parts_that_expand_or_reach_out_of_the_file():
    for compression, bomb in ((8, zlib.compress(bytes(70 << 20), 1)), (34925, lzma.compress(bytes(1 << 20)))):
        with pytest.raises(UnusableImage, match="^a part of the TIFF expands to more than its 64 bytes: damaged"):
            read(of_one_part(compression, bomb))
    with pytest.raises(UnusableImage, match="^a part of the TIFF declares 100 bytes but 64 are there"):
        read(of_one_part(1, bytes(range(64)), byte_count=100))
