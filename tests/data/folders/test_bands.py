import logging

import numpy as np
import pytest
from astropy.io import fits

from ssl_lens.data.folders.bands import Source, find_sources, read_source
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError


def test_files_of_parallel_band_folders_are_matched_by_object(caplog):
    caplog.set_level(logging.INFO)
    names = [
        "lens/Band10/x_U-100002.fits",
        "lens/Band2/x_I-100002.fits",
        "lens/Band1/x-Band1-100002.fits",
        "lens/Band1/x-Band1-100003.fits",
        "lens/Band2/x_I-100003.fits",
        "other/a.npy",
        "single/Band1/b.npy",
    ]
    assert find_sources(names) == [
        Source("lens/100002", (names[2], names[1], names[0]), ("Band1", "Band2", "Band10")),
        Source("lens/100003", (names[3], names[4], None), ("Band1", "Band2", "Band10")),
        Source("other/a.npy", ("other/a.npy",)),
        Source("single/Band1/b.npy", ("single/Band1/b.npy",)),
    ]
    assert caplog.messages == ["lens: 2 objects in the bands Band1, Band2, Band10, joined to images; 1 lack a band"]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("imageSDSS_R-100002.fits", "100002"),
        ("SDSSJ0946+1006_r.fits.gz", "0946+1006"),
        ("100002.npy", "100002"),
        ("100002_band{}.npy", "100002"),
        ("einstein_cross.npy", "einstein_cross"),
    ],
)
def test_the_name_of_an_object(file, expected):
    sources = find_sources([f"Band{i}/{file.format(i)}" for i in (1, 2)])
    assert [source.name for source in sources] == [expected]


def test_two_files_of_one_object_in_a_band():
    with pytest.raises(InputError, match=r"Band1/a-7.npy and Band1/b-7.npy are both object 7 in Band1; name files"):
        find_sources(["Band1/a-7.npy", "Band1/b-7.npy", "Band2/a-7.npy"])


def _write(root, band, name, image):
    (root / band).mkdir(parents=True, exist_ok=True)
    np.save(root / band / name, image)


def _one(root):
    (source,) = find_sources(sorted(path.relative_to(root).as_posix() for path in root.rglob("*.npy")))
    return list(read_source(root, source))


def test_bands_become_channels(tmp_path):
    planes = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    for i, plane in enumerate(planes):
        _write(tmp_path, f"Band{i + 1}", f"x{'RIGU'[i]}-1.npy", plane)
    (sample,) = _one(tmp_path)
    np.testing.assert_array_equal(sample.image, planes)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (np.zeros((8, 9)), r"Band2 has \(8, 9\) pixels but the first \(8, 8\)"),
        (np.zeros((5, 1, 8, 8)), "Band2 holds several images"),
        (None, "Band2 missing of 3 bands"),
    ],
)
def test_bands_that_cannot_be_joined(tmp_path, second, reason):
    for band in ("Band1", "Band3"):
        _write(tmp_path, band, "1.npy", np.zeros((8, 8)))
    _write(
        tmp_path, "Band2", "1.npy" if second is not None else "2.npy", np.zeros((8, 8)) if second is None else second
    )
    sources = find_sources(sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.npy")))
    with pytest.raises(UnusableImage, match=reason):
        list(read_source(tmp_path, sources[0]))


def test_a_missing_band_is_listed(tmp_path):
    for i in range(120):
        for band in ("Band1", "Band2"):
            if (i, band) != (7, "Band2"):
                _write(tmp_path / "set", band, f"{i:03d}.npy", np.random.default_rng(i).normal(size=(4, 4)))
    loaded = load_images(tmp_path / "set", cache=tmp_path / "cache", quarantine=tmp_path / "bad.tsv")
    assert loaded.images.shape == (119, 2, 4, 4)
    assert (tmp_path / "bad.tsv").read_text() == "007\tBand2 missing of 2 bands\n"


def test_the_ground_based_challenge(lens_data, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = lens_data / "bologna_fits" / "ground_based"
    loaded = load_images(root, cache=tmp_path, policy=PixelPolicy(mask_value=100))
    assert loaded.names[:2] == ("lens/100002", "lens/100003")
    assert loaded.images.shape == (8, 4, 101, 101)
    assert np.bincount(loaded.labels).tolist() == [4, 4]
    assert 1e-12 < np.abs(loaded.images).max() < 1e-8
    assert "261 flagged pixels of 2 images filled with their channel's median" in caplog.text
    for channel, (band, letter) in enumerate(zip("1234", "RIGU", strict=True)):
        plane = fits.getdata(root / "lens" / f"Band{band}" / f"imageSDSS_{letter}-100002.fits")
        np.testing.assert_array_equal(loaded.images[0][channel], plane)
