import logging

import numpy as np
import pytest

from ssl_lens.data.folders.band_files import joined_by_name
from ssl_lens.data.folders.bands import find_sources
from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError


def _names(pattern, bands, objects=("J1", "J2")):
    return sorted(pattern.format(band=band, object=name) for band in bands for name in objects)


@pytest.mark.parametrize(
    ("pattern", "bands", "found"),
    [
        ("{band}/{object}.fits", ["g", "r", "i"], "J1"),
        ("{band}/{object}.fits", ["VIS", "NIR_Y", "NIR_J", "NIR_H"], "J1"),
        ("{band}/{object}_{band}.fits", ["g", "r", "i"], "J1"),
        ("lens/{band}/{object}.fits", ["F606W", "F814W", "F160W"], "lens/J1"),
        ("{band}/lens/{object}.fits", ["HSC-G", "HSC-R", "HSC-I"], "lens/J1"),
        ("{object}_{band}.fits", ["g", "r", "i", "z"], "J1"),
        ("{object}-{band}.fits.gz", ["VIS", "NIR_Y"], "J1"),
        ("{object}.{band}.npy", ["g", "r"], "J1"),
        ("{band}_{object}.fits", ["g", "r", "i"], "J1"),
        ("lens/hst_{object}_{band}_drz.fits", ["F475W", "F814W"], "lens/hst_J1_drz"),
        ("{object}/{band}.fits", ["g", "r", "i"], "J1"),
        ("{object}_band{band}.npy", ["1", "2", "10"], "J1"),
        ("{object}/decam_{band}.fits", ["g", "r", "z"], "J1"),
        ("H_{object}_{band}.fits", ["g", "r"], "H_J1"),
    ],
)
def test_the_ways_in_which_files_are_told_apart_by_their_band(pattern, bands, found):
    sources = find_sources(_names(pattern, bands))
    assert [source.name for source in sources] == [found, found.replace("J1", "J2")]
    expected = [pattern.format(band=band, object="J1") for band in bands]
    assert [len(source.files) for source in sources] == [len(bands)] * 2
    assert set(sources[0].files) == set(expected)


@pytest.mark.parametrize(
    "names",
    [
        ["lens/1.npy", "nolens/1.npy"],
        ["a/1.npy", "b/2.npy", "a/2.npy", "b/1.npy"],  # classes
        ["J1_F814W.fits", "J2_F606W.fits"],  # each in its own band
        ["J1_g.fits", "J2_g.fits"],
        ["g/1.npy", "g/2.npy", "g/3.npy", "r/3.npy", "r/4.npy", "r/5.npy"],  # letters that share one name in five
        ["J1.npy", "J1_h.npy", "J1_v.npy"],  # mirror images
        ["gri_1.npy", "gri_2.npy"],
        ["img_1.npy", "img_2.npy"],
    ],
)
def test_other_files_are_images_of_their_own(names):
    assert joined_by_name(names) == ({}, names)


def test_channels_are_in_the_order_of_their_wavelengths(caplog):
    caplog.set_level(logging.INFO)
    (first, _) = find_sources(_names("{object}_{band}.fits", ["NIR_H", "VIS", "NIR_Y", "NIR_J", "DECAM_g"]))
    assert first.bands == ("DECAM_g", "VIS", "NIR_Y", "NIR_J", "NIR_H")
    assert first.files[0] == "J1_DECAM_g.fits"
    assert caplog.messages == [
        "2 objects in the bands DECAM_g, VIS, NIR_Y, NIR_J, NIR_H, joined to images; 0 lack a band"
    ]


def test_an_object_that_lacks_a_band_is_said_so():
    names = [name for name in _names("{band}/{object}.fits", ["VIS", "NIR_Y"]) if name != "NIR_Y/J2.fits"]
    assert [source.files for source in find_sources(names)] == [("VIS/J1.fits", "NIR_Y/J1.fits"), ("VIS/J2.fits", None)]


@pytest.mark.parametrize(
    ("planes", "files"),
    [
        (("VIS",), ("J1_VIS.fits",)),
        (("nir-h", "VIS"), ("J1_NIR_H.fits", "J1_VIS.fits")),
        ((2, 0), ("J1_NIR_H.fits", "J1_VIS.fits")),
    ],
)
def test_bands_are_chosen_in_the_order_asked_for(planes, files):
    (first, _) = find_sources(_names("{object}_{band}.fits", ["VIS", "NIR_Y", "NIR_H"]), PlaneChoice(planes))
    assert first.files == files
    assert first.choice == PlaneChoice()


def test_what_is_no_band_is_a_plane_of_each_file():
    (first, _) = find_sources(_names("{object}_{band}.fits", ["VIS", "NIR_Y"]), PlaneChoice(("SCI",)))
    assert first.choice == PlaneChoice(("SCI",))
    assert len(first.files) == 2


@pytest.mark.parametrize("planes", [("VIS", "NIR_K"), (0, 5)])
def test_a_band_that_is_not_there(planes):
    with pytest.raises(InputError, match=r"planes=.*: the files are in the bands VIS, NIR_Y; give some of these"):
        find_sources(_names("{object}_{band}.fits", ["VIS", "NIR_Y"]), PlaneChoice(planes))


def test_bands_with_their_noise_become_one_image(tmp_path):
    rng = np.random.default_rng(0)
    planes = rng.normal(size=(2, 8, 8)).astype(np.float32)
    for i, band in enumerate("gr"):
        noise = np.ones((8, 8))
        noise[i, 3] = 0
        np.savez(tmp_path / f"J1_{band}.npz", sci=planes[i], psf=rng.random((3, 3)))
        np.save(tmp_path / f"J1_{band}_rms.npy", noise)
    loaded = load_images(tmp_path, cache=tmp_path / "cache", policy=PixelPolicy(noise=("rms",)))
    assert loaded.names == ("J1",)
    changed = np.argwhere(loaded.images[0] != planes).tolist()
    assert changed == [[0, 0, 3], [1, 1, 3]]
    assert loaded.noise.tolist() == [[1, 1]]
