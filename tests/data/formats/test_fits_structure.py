"""FITS files that declare what cannot be, and what lies behind their units."""

import io

import numpy as np
import pytest
from astropy.io import fits

from ssl_lens.data.formats.reader import images_in
from ssl_lens.data.formats.sample import UnusableImage

IMAGE = np.random.default_rng(0).integers(0, 250, (2, 20, 24)).astype(np.float32)


def units(*more: fits.ImageHDU) -> bytes:
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(IMAGE[0]), *more]).writeto(file)
    return file.getvalue()


def read(data: bytes) -> list[np.ndarray]:
    return [sample.image for sample in images_in(io.BytesIO(data), "a.fits")]


def changed(data: bytes, key: str, value: object) -> bytes:
    """With the first card of this keyword saying something else."""
    start = data.index(f"{key:<8}=".encode())
    return data[:start] + f"{key:<8}= {value!s:>20}".encode().ljust(80) + data[start + 80 :]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("NAXIS", 99_999_999_999_999, "PRIMARY declares 99999999999999 axes, or one of a length below 0"),
        ("NAXIS", -1, "PRIMARY declares -1 axes"),
        ("NAXIS", 1000, "PRIMARY declares 1000 axes"),
        ("NAXIS", 3, "PRIMARY has NAXIS3=nothing, which is not an integer"),
        ("NAXIS1", -24, "PRIMARY declares 2 axes, or one of a length below 0"),
        ("NAXIS1", "2e1", "PRIMARY has NAXIS1=2e1, which is not an integer"),
        ("NAXIS1", 10**17, "PRIMARY declares 8000000000000000000 bytes but 2880 are there"),
        ("NAXIS1", 10**30, "PRIMARY has NAXIS1=1000000000000000000000000000000, which is not an integer"),
        ("BITPIX", 7, "PRIMARY declares BITPIX=7, GCOUNT=1, PCOUNT=0, TFIELDS=0, which cannot be"),
        ("BITPIX", 0, "PRIMARY declares BITPIX=0"),
    ],
)
def test_numbers_that_cannot_be(key, value, message):
    with pytest.raises(UnusableImage, match=f"^FITS unit {message}"):
        read(changed(units(), key, value))


@pytest.mark.parametrize(("key", "value"), [("PCOUNT", -(10**9)), ("GCOUNT", -1), ("GCOUNT", 10**12)])
def test_numbers_of_extensions_that_cannot_be(key, value):
    with pytest.raises(UnusableImage, match="^FITS unit 1 declares"):
        read(changed(units(fits.ImageHDU(IMAGE[1])), key, value))


def test_a_keyword_that_says_two_things():
    data = units()
    twice = data.replace(b"EXTEND  =                    T", b"NAXIS1  =                   12")
    with pytest.raises(UnusableImage, match="^FITS unit PRIMARY says both NAXIS1=24 and 12: damaged"):
        read(twice)


def test_a_header_without_an_end():
    with pytest.raises(UnusableImage, match="^FITS unit PRIMARY has no end of its header"):
        read(units()[:2880].replace(b"END ", b"AND "))
    with pytest.raises(UnusableImage, match="^FITS unit PRIMARY has a header of more than 4194304 bytes"):
        read(units()[:80] + b"COMMENT ".ljust(80) * 60_000)


def test_what_lies_behind_the_last_unit():
    """Padding, as of tapes, is nothing; anything else might have been planes of the image."""
    data = units(fits.ImageHDU(IMAGE[1], name="ERR"))
    for padding in (b"", b"\0" * 2880, b" " * 28_800, b"\n"):
        np.testing.assert_array_equal(read(data + padding)[0], IMAGE[:1])
    for junk in (b"\0" * 2880 + b"x", b"SIMPLE", data[5760:8000]):
        with pytest.raises(
            UnusableImage, match=r"^(what follows FITS unit 1 at byte 11520 is not a unit|FITS unit 2 )"
        ):
            read(data + junk)


def test_a_damaged_extension_is_not_left_out():
    """Astropy would warn, and give the image without this plane."""
    data = units(fits.ImageHDU(IMAGE[1]))
    with pytest.raises(UnusableImage, match="^what follows FITS unit PRIMARY at byte 5760 is not a unit: damaged"):
        read(data.replace(b"XTENSION", b"XTENSIOM"))


def test_compressed_images_and_their_tiles_may_not_be_far_larger_than_the_file():
    file = io.BytesIO()
    packed = fits.CompImageHDU(IMAGE[0].astype(np.int16), compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(file)
    data = file.getvalue()
    np.testing.assert_array_equal(read(data)[0], IMAGE[:1])
    for key in ("ZNAXIS1", "ZTILE1"):
        with pytest.raises(UnusableImage, match=r"(a tile of )?FITS unit 1 declares \d{10,} bytes in \d+ stored ones"):
            read(changed(data, key, 10**9))
    with pytest.raises(UnusableImage, match="^FITS unit 1 declares a tile of length -4: damaged"):
        read(changed(data, "ZTILE1", -4))
