import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_RNG = np.random.default_rng(0)
_GREY = _RNG.integers(0, 60_000, (20, 24)).astype(np.uint16)


def _images(path):
    return [sample.image for sample in read_images(path)]


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4", "f8", "u4"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_grey_of_any_type(tmp_path, dtype, byteorder):
    image = (_GREY / 300).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=byteorder)
    (read,) = _images(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, image[None].astype(np.float32))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_colour_keeps_its_depth(tmp_path, dtype, planar):
    image = _RNG.integers(0, 250, (3, 20, 24)).astype(dtype) * np.array(1 if dtype == "u1" else 200, dtype)
    data = image if planar == "separate" else np.moveaxis(image, 0, 2)
    tifffile.imwrite(tmp_path / "a.tiff", data, photometric="rgb", planarconfig=planar)
    (read,) = _images(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read, image.astype(np.float32))


def test_transparency_is_dropped(tmp_path):
    image = _RNG.integers(0, 250, (20, 24, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", extrasamples=["unassalpha"])
    (read,) = _images(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, np.moveaxis(image[..., :3], 2, 0))


def test_few_grey_pages_are_channels_and_many_are_images(tmp_path):
    stack = _RNG.normal(size=(20, 40, 44)).astype(np.float32)
    for count, shape in ((4, (4, 40, 44)), (16, (16, 40, 44))):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for page in stack[:count]:
                tiff.write(page, contiguous=False)
        (read,) = _images(tmp_path / "a.tif")
        assert read.shape == shape
        np.testing.assert_array_equal(read, stack[:count])
    tifffile.imwrite(tmp_path / "b.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(np.stack(_images(tmp_path / "b.tif")), stack[:, None])


def test_pages_of_colour_are_images(tmp_path):
    stack = _RNG.integers(0, 250, (5, 20, 24, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="rgb")
    np.testing.assert_array_equal(np.stack(_images(tmp_path / "a.tif")), np.moveaxis(stack, 3, 1))


def test_a_thumbnail_is_left_out(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(_GREY)
        tiff.write(_GREY[::2, ::2])
    (read,) = _images(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, _GREY[None])


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
def test_compressed_by_others(tmp_path, compression):
    pages = [Image.fromarray(np.roll(_GREY, i)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", compression=compression, save_all=True, append_images=pages[1:])
    (read,) = _images(tmp_path / "a.tif")
    np.testing.assert_array_equal(read, np.stack([np.roll(_GREY, i) for i in range(3)]))


def test_an_absurd_declared_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint8))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for tag in ("ImageWidth", "ImageLength"):
            tiff.pages[0].tags[tag].overwrite(2_000_000, dtype=4)
    with pytest.raises(UnusableImage, match="TIFF declares 4000000000000 bytes in"):
        _images(tmp_path / "a.tif")


def test_tiles_and_an_absurd_one(tmp_path):
    image = _RNG.normal(size=(40, 50)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(_images(tmp_path / "a.tif")[0][0], image)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        for tag in ("TileWidth", "TileLength"):
            tiff.pages[0].tags[tag].overwrite(160_000, dtype=4)
    with pytest.raises(UnusableImage, match="a tile of the TIFF declares 102400000000 bytes"):
        _images(tmp_path / "a.tif")
