import logging

import numpy as np
import pytest
from astropy.io import fits

from ssl_lens.data.folders.bands import find_sources, read_source
from ssl_lens.data.folders.roles import name_of, roles_of
from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy

_IMAGE = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (["a/data.fits", "a/noise_map.fits", "a/psf.fits"], ["a/data.fits"]),
        (["J1.fits", "J1_psf.fits", "J1_weight.fits", "J2.fits"], ["J1.fits", "J2.fits"]),
        (["J1_sci.fits", "J1_wht.fits", "J2_sci.fits"], ["J1_sci.fits", "J2_sci.fits"]),
        (["J1_g_sci.fits", "J1_g_var.fits", "J1_r_sci.fits"], ["J1_g_sci.fits", "J1_r_sci.fits"]),
        (["images/1.npy", "noise/1.npy", "masks/1.npy"], ["images/1.npy"]),
        (["images/lens/1.npy", "psf/lens/1.npy"], ["images/lens/1.npy"]),
        (["lens/1.npy", "lens/2.npy", "psf.npy"], ["lens/1.npy", "lens/2.npy", "psf.npy"]),  # may be an image's name
        (["1.npy", "2.npy", "psf.npy"], ["1.npy", "2.npy"]),
        # Without an image that they belong to, files are images whatever they are called, and so are classes.
        (["mask_1.npy", "mask_2.npy"], ["mask_1.npy", "mask_2.npy"]),
        (["lens/1.npy", "noise/1.npy"], ["lens/1.npy", "noise/1.npy"]),
        (["bad0.npy", "model1.npy", "x.npy"], ["bad0.npy", "model1.npy", "x.npy"]),
        (["noise01.npy", "data02.npy"], ["noise01.npy", "data02.npy"]),
    ],
)
def test_which_files_are_images(names, images):
    assert roles_of(names).images == images


def test_the_longest_suffix_is_taken_off():
    assert name_of("a/x.fits.gz") == name_of("b/x.FITS.FZ") == name_of("x.fts") == "x"


def _lens(root, name, noise=None, psf_side=11):
    (root / name).mkdir(parents=True)
    fits.PrimaryHDU(_IMAGE).writeto(root / name / "data.fits")
    fits.PrimaryHDU(np.full((psf_side, psf_side), 0.5) * np.arange(psf_side)).writeto(root / name / "psf.fits")
    if noise is not None:
        fits.PrimaryHDU(noise).writeto(root / name / "noise_map.fits")


def test_a_folder_per_lens_is_not_cut_to_the_size_of_its_psf(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for i in range(3):
        _lens(tmp_path / "set", f"lens_{i}", np.ones((20, 20)))
    images = load_images(tmp_path / "set", cache=tmp_path / "cache", policy=PixelPolicy(sizes="crop"))
    assert images.names == ("lens_0", "lens_1", "lens_2")
    assert images.shape == (1, 20, 20)
    assert images.labels is None
    assert "6 files kept out, which their names say are no images (noise_map.fits, psf.fits)" in caplog.text


def test_noise_in_a_file_of_its_own_flags_pixels(tmp_path):
    noise = np.where(np.arange(400).reshape(20, 20) % 100 == 7, 0.0, 0.1)
    for i in range(3):
        _lens(tmp_path / "set", f"lens_{i}", noise)
    policy = PixelPolicy(noise=("noise_map",))
    images = load_images(tmp_path / "set", cache=tmp_path / "cache", policy=policy)
    expected = np.where(noise > 0, _IMAGE, np.median(_IMAGE[noise > 0]))
    np.testing.assert_array_equal(images.images[1], expected[None])
    other = np.where(np.arange(400).reshape(20, 20) % 100 == 8, np.nan, 0.1).astype(np.float32)
    fits.writeto(tmp_path / "set" / "lens_1" / "noise_map.fits", other, overwrite=True)
    again = load_images(tmp_path / "set", cache=tmp_path / "cache", policy=policy)
    assert again.images[1][0, 0, 7] == _IMAGE[0, 7]  # packed again, since a file changed


def test_noise_that_is_missing(tmp_path):
    _lens(tmp_path, "a", np.ones((20, 20)))
    _lens(tmp_path, "b")
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.fits"))
    a, b = find_sources(names, PlaneChoice(noise=("noise_map",)))
    assert a.noise == ("a/noise_map.fits",)
    assert len(list(read_source(tmp_path, a))) == 1
    with pytest.raises(UnusableImage, match="the file of its noise is missing"):
        list(read_source(tmp_path, b))
