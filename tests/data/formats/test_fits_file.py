import gzip

import numpy as np
import pytest
from astropy.io import fits

from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_IMAGE = np.random.default_rng(0).integers(0, 250, size=(3, 20, 24)).astype(np.float64)


def _images(path):
    return [sample.image for sample in read_images(path)]


def test_the_first_unit_with_an_image_is_taken(tmp_path):
    table = fits.BinTableHDU.from_columns([fits.Column(name="z", format="E", array=np.zeros(3))])
    image = fits.ImageHDU((_IMAGE * 1e-12).astype(">f4"))
    fits.HDUList([fits.PrimaryHDU(), table, image, fits.ImageHDU(_IMAGE[:, :9])]).writeto(tmp_path / "a.fits")
    (tmp_path / "b.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    for name in ("a.fits", "b.fits.gz"):
        (read,) = _images(tmp_path / name)
        np.testing.assert_array_equal(read, (_IMAGE * 1e-12).astype(np.float32))


def test_scaling_is_applied(tmp_path):
    unit = fits.PrimaryHDU(np.array([[0, 40000], [65535, 1]], dtype=np.uint16))  # stored as int16 with BZERO
    unit.writeto(tmp_path / "a.fits")
    assert unit.header["BZERO"] == 32768
    assert _images(tmp_path / "a.fits")[0].tolist() == [[[0, 40000], [65535, 1]]]
    scaled = fits.PrimaryHDU(np.arange(20 * 20 * 20, dtype=np.float64).reshape(20, 20, 20))
    scaled.scale("int16", bscale=0.5, bzero=3000)
    scaled.writeto(tmp_path / "b.fits")
    read = np.stack(_images(tmp_path / "b.fits"))
    assert read.shape == (20, 1, 20, 20)
    np.testing.assert_allclose(read.ravel(), np.arange(8000), atol=0.5)


def test_degenerate_axes_are_dropped(tmp_path):
    fits.PrimaryHDU(_IMAGE[:1, None]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(_images(tmp_path / "a.fits")[0], _IMAGE[:1])


@pytest.mark.parametrize(("planes", "shapes"), [(16, [(16, 40, 40)]), (17, [(1, 40, 40)] * 17)])
def test_cubes_and_units_of_bands_follow_the_rule_of_planes(tmp_path, planes, shapes):
    cube = np.random.default_rng(1).normal(size=(planes, 40, 40)).astype(np.float32)
    fits.PrimaryHDU(cube).writeto(tmp_path / "cube.fits")
    units = [fits.PrimaryHDU(), *(fits.ImageHDU(plane, name=f"BAND{i}") for i, plane in enumerate(cube))]
    fits.HDUList(units).writeto(tmp_path / "units.fits")
    for name in ("cube.fits", "units.fits"):
        read = _images(tmp_path / name)
        assert [image.shape for image in read] == shapes
        np.testing.assert_array_equal(np.concatenate(read), cube)


def test_more_than_sixteen_units_of_several_channels_are_images(tmp_path):
    cubes = [_IMAGE + i for i in range(17)]
    fits.HDUList([fits.PrimaryHDU(), *map(fits.ImageHDU, cubes)]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(np.stack(_images(tmp_path / "a.fits")), np.stack(cubes))


def test_units_that_are_not_flux_are_left_out(tmp_path):
    units = [fits.PrimaryHDU(), fits.ImageHDU(_IMAGE[0], name="SCI")]
    units += [fits.ImageHDU(_IMAGE[1], name=name) for name in ("ERR", "DQ", "wht", "SCI_IVAR", "MASK_2")]
    fits.HDUList(units).writeto(tmp_path / "a.fits")
    (read,) = _images(tmp_path / "a.fits")
    np.testing.assert_array_equal(read, _IMAGE[:1])


def test_compressed_units(tmp_path):
    image = _IMAGE.astype(np.int16)
    unit = fits.CompImageHDU(image, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(_images(tmp_path / "a.fits")[0], image)


def test_no_image(tmp_path):
    fits.PrimaryHDU().writeto(tmp_path / "a.fits")
    with pytest.raises(UnusableImage, match="none of the 1 FITS"):
        _images(tmp_path / "a.fits")


@pytest.mark.parametrize("side", [100_000, 1_000_000])
def test_an_absurd_declared_size_is_refused_before_anything_is_allocated(tmp_path, side):
    fits.PrimaryHDU(_IMAGE).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    for axis, length in ((1, 24), (2, 20)):
        old = f"NAXIS{axis}  = {length:>20}".encode()
        assert old in whole
        whole = whole.replace(old, f"NAXIS{axis}  = {side:>20}".encode())
    (tmp_path / "a.fits").write_bytes(whole)
    with pytest.raises(UnusableImage, match=f"PRIMARY declares {24 * side**2} bytes but 11520 are there"):
        _images(tmp_path / "a.fits")


def test_a_gzip_bomb(tmp_path):
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(b"\0" * (65 << 20), 1))
    with pytest.raises(UnusableImage, match="gzipped bytes expand to more than 67108864; unpack the file with gunzip"):
        _images(tmp_path / "a.fits.gz")


def test_big_endian_files_of_others_against_astropy(lens_data):
    for folder, unit in (("slacs_fits", 1), ("bologna_fits/space_based/lens", 0)):
        for path in sorted((lens_data / folder).iterdir()):
            with fits.open(path) as units:
                assert not units[unit].data.dtype.isnative
                np.testing.assert_array_equal(_images(path)[0][0], units[unit].data)
