import gzip

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from ssl_lens.data.formats import UnreadableImage, is_image, read_image

_IMAGE = np.random.default_rng(0).integers(0, 250, size=(3, 20, 24)).astype(np.float64)


def _check(read: np.ndarray, expected: np.ndarray) -> None:
    assert read.dtype == np.float32
    assert read.dtype.isnative
    assert read.flags.writeable
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, expected.astype(np.float32))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "<i2", ">i4", "u8", "float16", ">f4", "<f8", ">f8"])
def test_npy_of_any_numeric_type(tmp_path, dtype):
    image = (_IMAGE[0] > 100 if dtype == "bool" else _IMAGE[0]).astype(dtype)
    np.save(tmp_path / "a.npy", image)
    _check(read_image(tmp_path / "a.npy"), image[None])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 10])
def test_layouts_become_channels_first(tmp_path, channels):
    image = np.random.default_rng(1).normal(size=(channels, 20, 24))
    for layout in (image, np.moveaxis(image, 0, 2), image[None]):
        np.save(tmp_path / "a.npy", layout)
        _check(read_image(tmp_path / "a.npy"), image)
    np.save(tmp_path / "a.npy", np.asfortranarray(image))
    _check(read_image(tmp_path / "a.npy"), image)


def test_npz_takes_its_only_array_or_the_one_named_image(tmp_path):
    np.savez(tmp_path / "only.npz", _IMAGE)
    np.savez_compressed(tmp_path / "named.npz", mass=np.array(3.0), image=_IMAGE)
    np.savez(tmp_path / "many.npz", a=_IMAGE, b=_IMAGE)
    _check(read_image(tmp_path / "only.npz"), _IMAGE)
    _check(read_image(tmp_path / "named.npz"), _IMAGE)
    with pytest.raises(UnreadableImage, match=r"arrays \['a', 'b'\]"):
        read_image(tmp_path / "many.npz")


def test_pictures(tmp_path):
    rgb = np.moveaxis(_IMAGE, 0, 2).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(np.dstack([rgb, np.full((20, 24), 128, np.uint8)])).save(tmp_path / "alpha.PNG")
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    deep = _IMAGE[0].astype(np.uint16) * 200
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(tmp_path / "grey.jpeg")
    _check(read_image(tmp_path / "rgb.png"), _IMAGE)
    _check(read_image(tmp_path / "alpha.PNG"), _IMAGE)
    _check(read_image(tmp_path / "grey.png"), _IMAGE[:1])
    _check(read_image(tmp_path / "deep.png"), deep[None])
    _check(read_image(tmp_path / "grey.jpeg"), np.full((1, 16, 16), 77))


def test_fits_takes_the_first_unit_with_an_image(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column(name="z", format="E", array=np.zeros(3))])
    image = fits.ImageHDU((_IMAGE * 1e-12).astype(">f4"))
    fits.HDUList([fits.PrimaryHDU(), table, image, fits.ImageHDU(_IMAGE * 0)]).writeto(tmp_path / "a.fits")
    _check(read_image(tmp_path / "a.fits"), _IMAGE * 1e-12)
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    _check(read_image(tmp_path / "b.fits.gz"), _IMAGE * 1e-12)


def test_fits_scaling_is_applied(tmp_path):
    unit = fits.PrimaryHDU(np.array([[0, 40000], [65535, 1]], dtype=np.uint16))  # stored as int16 with BZERO
    unit.writeto(tmp_path / "a.fits")
    assert unit.header["BZERO"] == 32768
    _check(read_image(tmp_path / "a.fits"), np.array([[[0, 40000], [65535, 1]]]))


def test_degenerate_fits_axes_are_dropped(tmp_path):
    fits.PrimaryHDU(_IMAGE[:1, None]).writeto(tmp_path / "a.fits")
    _check(read_image(tmp_path / "a.fits"), _IMAGE[:1])


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.jpg", "a.png", "a.fits", "a.fits.gz"])
def test_damaged_files_of_every_format(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(3).integers(0, 255, (64, 64), dtype=np.uint8)
    if name == "a.npy":
        np.save(path, noise)
    elif name == "a.npz":
        np.savez(path, noise)
    elif name.endswith(("jpg", "png")):
        Image.fromarray(noise).save(path)
    else:
        fits.PrimaryHDU(noise).writeto(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) * 2 // 3], b"", b"not an image at all"):
        path.write_bytes(damaged)
        with pytest.raises(UnreadableImage) as error:
            read_image(path)
        assert str(error.value)
        assert "\n" not in str(error.value)


def test_a_pickle_is_never_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    np.save(tmp_path / "a.npy", np.array([Payload(), 1.0], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImage, match="allow_pickle=False"):
        read_image(tmp_path / "a.npy")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 4), dtype=complex), "complex128, not real numbers"),
        (np.array([["a", "b"]]), "<U1, not real numbers"),
        (np.zeros(7), r"shape \(7,\) is no image"),
        (np.zeros((0, 4)), r"shape \(0, 4\) is no image"),
        (np.zeros((2, 3, 8, 8)), r"shape \(2, 3, 8, 8\) is no image"),
        (np.zeros((64, 64, 64)), r"no axis of shape \(64, 64, 64\) can be the channels"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, reason):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(tmp_path / "a.npy")


def test_fits_without_an_image(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    with pytest.raises(UnreadableImage, match="none of the 1 FITS"):
        read_image(tmp_path / "a.fits")


def test_which_names_are_images():
    assert all(map(is_image, ["a.npy", "B.JPG", "c.jpeg", "d.fits", "e.fits.gz", "f.npz"]))
    assert not any(map(is_image, ["a.txt", "b.csv", ".c.npy", "._d.jpg", "e.gz", "npy"]))
