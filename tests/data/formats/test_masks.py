"""Masks and quality flags that are asked for: what they mark is flagged, and nothing else is taken for one."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from ssl_lens.data.formats.plane_names import bad_where, is_mask
from ssl_lens.data.formats.planes import PlaneChoice
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)
_IMAGE = _RNG.normal(size=(20, 24)).astype(np.float32)


def _written(path, masks, headers=()):
    units = [fits.PrimaryHDU(), fits.ImageHDU(_IMAGE, name="SCI")]
    for name, mask in masks.items():
        units.append(fits.ImageHDU(mask, name=name))
        units[-1].header.update(dict(headers))
    fits.HDUList(units).writeto(path)
    return path


def _flagged(path, *mask):
    (sample,) = read_images(path, PlaneChoice(mask=mask))
    return np.argwhere(np.isnan(sample.image[0])).tolist()


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("nonzero", "MASK DQ mask BPM bad_pixels flags MSK quality bitmask x ci_mask maskbits"),
        ("zero", "GOOD good_pixel_mask goodpix valid VALID_MASK unmasked"),
        (None, "SEGM segmentation seg_mask WHT weight ivar VARIANCE NOISE_MAP PSF EXPTIME SCI image F814W"),
    ],
)
def test_what_is_bad_in_a_mask(where, names):
    assert {name: bad_where(name) for name in names.split()} == dict.fromkeys(names.split(), where)
    assert not is_mask("segmentation_mask")


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.int64, np.float32])
def test_marked_pixels_are_flagged(tmp_path, kind):
    mask = np.zeros((20, 24), kind)
    mask[2, 3], mask[4, 5] = 1, 64
    path = _written(tmp_path / "a.fits", {"DQ": mask, "GOODPIX": (mask == 0).astype(kind)})
    assert _flagged(path) == []
    assert _flagged(path, "DQ") == _flagged(path, 2) == _flagged(path, "goodpix") == [[2, 3], [4, 5]]


def test_bits_that_are_named_count_unless_they_are_harmless(tmp_path):
    names = {"BAD": 0, "SAT": 1, "DETECTED": 5, "DETECTED_NEGATIVE": 6, "NO_DATA": 8, "BRIGHT_OBJECT": 9, "NEW": 30}
    mask = np.full((20, 24), 1 << 5 | 1 << 9, np.int32)  # detected, next to a bright object
    for i, bit in enumerate([0, 1, 6, 8, 30, 17]):  # the last one has no name
        mask[i, i] |= 1 << bit
    with_names = {f"HIERARCH MP_{name}": bit for name, bit in names.items()}
    path = _written(tmp_path / "a.fits", {"MASK": mask}, with_names)
    assert _flagged(path, "MASK") == [[0, 0], [1, 1], [3, 3], [4, 4]]
    assert len(_flagged(_written(tmp_path / "b.fits", {"MASK": mask}), "MASK")) == 480
    with pytest.raises(UnusableImage, match="MP_SAT=99 is not the number of a bit of a mask: damaged"):
        _flagged(_written(tmp_path / "c.fits", {"MASK": mask}, {"MP_SAT": 99}), "MASK")


def test_masks_of_stacks_and_of_each_channel(tmp_path):
    stack, masks = _RNG.normal(size=(20, 2, 16, 16)), np.zeros((20, 2, 16, 16), bool)
    masks[3, 1, 2, 2] = True
    np.savez(tmp_path / "a.npz", images=stack, mask=masks)
    flagged = [np.isnan(sample.image) for sample in read_images(tmp_path / "a.npz", PlaneChoice(mask=("mask",)))]
    np.testing.assert_array_equal(flagged, masks)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            PlaneChoice(mask=("SEGM",)),
            "mask=SEGM is no mask by its name; a noise, weight or exposure map is given as no",
        ),
        (PlaneChoice(mask=("WHT",)), "mask=WHT is no mask by its name; a noise, weight"),
        (PlaneChoice(noise=("DQ",)), "noise=DQ is a mask, of which 0 is good; give it as mask=DQ"),
        (PlaneChoice(mask=("SCI",)), "mask=SCI is no mask by its name"),
        (PlaneChoice(mask=("BPM",)), "mask=BPM: no plane of this name"),
        (PlaneChoice(mask=("DQ", "DQ")), "mask=DQ,DQ for 1 planes; give one for all or one for each"),
    ],
)
def test_what_is_no_mask(tmp_path, choice, message):
    zeros = np.zeros((20, 24), np.int32)
    path = _written(tmp_path / "a.fits", {"DQ": zeros, "SEGM": zeros, "WHT": zeros})
    with pytest.raises(UnusableImage, match=message):
        list(read_images(path, choice))


@pytest.mark.parametrize("kind", ["fits", "npy", "png"])
@pytest.mark.parametrize("name", ["mask", "goodpix"])
def test_files_of_masks_next_to_the_images(tmp_path, kind, name):
    bad = np.zeros((20, 24), np.uint8)
    bad[2, 3] = 255
    mask = bad if name == "mask" else 255 - bad
    for i in range(3):
        fits.PrimaryHDU(_IMAGE + i).writeto(tmp_path / f"J{i}.fits")
        path = tmp_path / f"J{i}_{name}.{kind}"
        if kind == "fits":
            fits.PrimaryHDU(mask).writeto(path)
        elif kind == "npy":
            np.save(path, mask)
        else:
            Image.fromarray(mask).save(path)
    loaded = load_images(tmp_path, cache=tmp_path / "cache", policy=PixelPolicy(mask=(name,)))
    assert loaded.names == ("J0.fits", "J1.fits", "J2.fits")
    plain = np.stack([_IMAGE[None] + i for i in range(3)])
    assert np.argwhere(loaded.images[:] != plain)[:, 2:].tolist() == [[2, 3]] * 3
    (tmp_path / path.name).unlink()
    with pytest.raises(InputError, match="the file of its mask is missing"):
        load_images(tmp_path, cache=tmp_path / "cache", policy=PixelPolicy(mask=(name,)))
