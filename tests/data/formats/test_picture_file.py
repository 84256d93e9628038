import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_RGB = np.random.default_rng(0).integers(0, 250, size=(20, 24, 3)).astype(np.uint8)


def _image(path):
    (sample,) = read_images(path)
    return sample.image


def test_pictures(tmp_path):
    Image.fromarray(_RGB).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([_RGB, np.full((20, 24), 128, np.uint8)])).save(tmp_path / "alpha.PNG")
    Image.fromarray(_RGB[..., 0]).save(tmp_path / "grey.png")
    deep = _RGB[..., 0].astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(tmp_path / "grey.jpeg")
    expected = np.moveaxis(_RGB, 2, 0)
    np.testing.assert_array_equal(_image(tmp_path / "rgb.png"), expected)
    np.testing.assert_array_equal(_image(tmp_path / "alpha.PNG"), expected)
    np.testing.assert_array_equal(_image(tmp_path / "grey.png"), expected[:1])
    np.testing.assert_array_equal(_image(tmp_path / "deep.png"), deep[None])
    np.testing.assert_array_equal(_image(tmp_path / "grey.jpeg"), np.full((1, 16, 16), 77))


def _png(side: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (6, 4), (4, 2)])
def test_deep_colour_is_refused_instead_of_cut_to_8_bits(tmp_path, colour, samples):
    row = b"\0" + np.arange(8 * samples, dtype=">u2").tobytes()
    (tmp_path / "a.png").write_bytes(_png(8, 16, colour, row * 8))
    with pytest.raises(UnusableImage, match="would be cut to 8 bits"):
        _image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 40_000])
def test_decompression_bombs(tmp_path, side):
    (tmp_path / "a.png").write_bytes(_png(side, 1, 0, b"\0" * 1000))
    with pytest.raises(UnusableImage, match=r"at most \d+ are read|exceeds limit"):
        _image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_no_file_passes_for_a_format_that_runs_programs(tmp_path, name):
    Image.new("L", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / name)
    with pytest.raises(UnusableImage, match="cannot identify image file|not a TIFF file"):
        _image(tmp_path / name)
