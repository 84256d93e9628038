import h5py
import numpy as np
import pytest
from astropy.io import fits

from ssl_lens.data.formats.planes import PlaneChoice, left_out_line, plane_names
from ssl_lens.data.formats.reader import read_images
from ssl_lens.data.formats.sample import UnusableImage

_RNG = np.random.default_rng(0)
_CUBE = _RNG.normal(1, 0.1, size=(8, 20, 24)).astype(np.float32)


def _units(path, *names, **shapes):
    """Units of these names, each another plane of the cube; of other shapes those named."""
    units = [fits.ImageHDU(_CUBE[i], name=name) for i, name in enumerate(names)]
    units += [fits.ImageHDU(np.ones(shape, np.float32), name=name) for name, shape in shapes.items()]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(path / "a.fits")
    return path / "a.fits"


def _read(path, *planes, noise=()):
    (sample,) = read_images(path, PlaneChoice(planes, noise))
    return sample


@pytest.mark.parametrize(
    ("names", "taken", "left_out"),
    [
        (["IMAGE", "VARIANCE"], [0], ["VARIANCE"]),
        (["IMAGE", "MASK", "VARIANCE"], [0], ["MASK", "VARIANCE"]),
        (["NOISE_MAP", "SCI", "SEG"], [1], ["NOISE_MAP", "SEG"]),
        (["SOMETHING", "SCI", ""], [1], ["SOMETHING", "plane 3"]),
        (["", "WEIGHT"], [0], ["WEIGHT"]),
        (["OBJECT", "RMS"], [0], ["RMS"]),
        (["VARIANCE"], [0], []),
        (["VIS", "VIS_RMS", "NIR_Y", "NIR_Y_RMS", "NIR_H"], [0, 2, 4], ["VIS_RMS", "NIR_Y_RMS"]),
        (["r", "g", "r_ivar"], [0, 1], ["R_IVAR"]),
        (["SCI_F160W", "SCI_F606W", "ERR_F160W"], [0, 1], ["ERR_F160W"]),
    ],
)
def test_planes_are_flux_only_if_known_to_be(tmp_path, names, taken, left_out):
    sample = _read(_units(tmp_path, *names))
    np.testing.assert_array_equal(sample.image, _CUBE[taken])
    assert list(sample.left_out) == left_out


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        ([""] * 8, "8 planes in the file (1, 2, 3, 4, 5, 6, 7, 8), and nothing says"),
        (["A", "B"], "2 planes in the file (1 A, 2 B), and nothing says which are the image"),
        (["SCI", "SCI"], "2 planes in the file (1 SCI, 2 SCI)"),
        (["IMAGE", "DATA", "MASK"], "3 planes in the file (1 IMAGE, 2 DATA, 3 MASK)"),
        (["g", "FOO"], "2 planes in the file (1 G, 2 FOO)"),
        (["PSF", "MASK"], "choose, such as planes=PSF"),
    ],
)
def test_planes_that_nothing_tells_apart_are_refused(tmp_path, names, listed):
    with pytest.raises(UnusableImage) as error:
        _read(_units(tmp_path, *names))
    assert listed in str(error.value)


def test_a_plane_of_another_size_is_kept_out(tmp_path):
    sample = _read(_units(tmp_path, "", **{"STAMP": (5, 5)}))
    np.testing.assert_array_equal(sample.image, np.ones((1, 5, 5)))  # known to be flux by its name
    (tmp_path / "a.fits").unlink()
    sample = _read(_units(tmp_path, "", **{"THUMB": (5, 5)}))
    np.testing.assert_array_equal(sample.image, _CUBE[:1])
    assert sample.left_out == ("THUMB",)


def test_bands_of_another_size_than_the_first_are_kept_out(tmp_path):
    sample = _read(_units(tmp_path, "g", "r", VIS=(40, 40)))
    np.testing.assert_array_equal(sample.image, _CUBE[:2])
    assert sample.left_out == ("VIS",)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("EXTTYPE", "VARIANCE"),
        ("HDUCLAS2", "ERROR"),
        *(("BUNIT", unit) for unit in ("nJy**2", "adu2", "(MJy/sr)^-2", "1/nJy^2")),
    ],
)
def test_headers_say_what_names_do_not(tmp_path, keyword, value):
    units = [fits.PrimaryHDU(), fits.ImageHDU(_CUBE[0]), fits.ImageHDU(_CUBE[1])]
    units[1].header["BUNIT"] = "erg/s/cm2/arcsec2"
    units[2].header[keyword] = value
    fits.HDUList(units).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(_read(tmp_path / "a.fits").image, _CUBE[:1])


@pytest.mark.parametrize(
    ("planes", "taken"),
    [(("VIS",), [0]), (("nir_y", "vis"), [2, 0]), ((3, 1), [2, 0]), (("VIS_RMS",), [1]), (("NIR_H", 1), [3, 0])],
)
def test_planes_are_chosen_by_name_or_number_in_the_order_asked_for(tmp_path, planes, taken):
    sample = _read(_units(tmp_path, "VIS", "VIS_RMS", "NIR_Y", "NIR_H"), *planes)
    np.testing.assert_array_equal(sample.image, _CUBE[taken])


@pytest.mark.parametrize(
    ("planes", "message"),
    [
        (("DECAM",), "planes=DECAM: no plane of this name or number in the file (1 VIS, 2 SCI, 3 SCI); give another"),
        (("VIS", 9), "planes=9: no plane of this name or number"),
        (("SCI",), "planes=SCI: 2 planes of this name or number"),
    ],
)
def test_planes_that_are_not_there(tmp_path, planes, message):
    path = _units(tmp_path, "VIS", "SCI", "SCI")
    with pytest.raises(UnusableImage) as error:
        _read(path, *planes)
    assert message in str(error.value)


def test_planes_of_unequal_size_are_no_image(tmp_path):
    with pytest.raises(UnusableImage, match="the planes of one image have 5x5 and 20x24 pixels"):
        _read(_units(tmp_path, "VIS", NIR_Y=(5, 5)), "VIS", "NIR_Y")


def test_one_array_is_chosen_from_by_its_channels(tmp_path):
    np.save(tmp_path / "a.npy", _CUBE[:4])
    unit = fits.PrimaryHDU(_CUBE[:3])
    unit.header["BANDS"] = "grz"
    unit.writeto(tmp_path / "a.fits")
    np.savez(tmp_path / "a.npz", _CUBE[:4])
    for name in ("a.npy", "a.fits", "a.npz"):
        np.testing.assert_array_equal(_read(tmp_path / name, 2, 0).image, _CUBE[[2, 0]])
    np.testing.assert_array_equal(_read(tmp_path / "a.fits", "z", "r").image, _CUBE[[2, 1]])
    with pytest.raises(UnusableImage, match="planes=4 of an image of 4 channels, counted from 0; give others"):
        _read(tmp_path / "a.npy", 4)
    with pytest.raises(UnusableImage, match="planes=VIS of an image of 4 channels without names; choose by number"):
        _read(tmp_path / "a.npy", "VIS")


def test_where_there_is_nothing_to_choose_a_name_does_no_harm(tmp_path):
    np.save(tmp_path / "a.npy", _CUBE[0])
    fits.PrimaryHDU(_CUBE[0]).writeto(tmp_path / "a.fits")
    for name in ("a.npy", "a.fits"):
        np.testing.assert_array_equal(_read(tmp_path / name, "VIS").image, _CUBE[:1])
    fits.PrimaryHDU(_CUBE[0], fits.Header({"EXTNAME": "NIR_Y"})).writeto(tmp_path / "b.fits")
    with pytest.raises(UnusableImage, match=r"planes=VIS: no plane of this name or number in the file \(0 NIR_Y\)"):
        _read(tmp_path / "b.fits", "VIS")


def test_noise_flags_what_was_not_measured(tmp_path):
    noise = np.full((20, 24), 0.1, np.float32)
    noise[0, :4] = 0, -1, np.nan, np.inf
    units = [fits.ImageHDU(_CUBE[0], name="SCI"), fits.ImageHDU(noise, name="RMS"), fits.ImageHDU(_CUBE[1], name="WHT")]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(tmp_path / "a.fits")
    sample = _read(tmp_path / "a.fits", noise=("RMS",))
    assert np.isnan(sample.image[0, 0, :4]).all()
    np.testing.assert_array_equal(np.where(noise > 0, _CUBE[0], 0)[1:], sample.image[0, 1:])
    assert np.isnan(sample.image).sum() == 4
    assert sample.left_out == ("WHT",)


def test_noise_of_each_channel_and_of_stacks(tmp_path):
    stack, noise = _RNG.normal(size=(20, 2, 16, 16)), np.ones((20, 2, 16, 16))
    noise[3, 1, 2, 2] = 0
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["noise_map"] = stack, noise
    bad = [
        np.argwhere(np.isnan(sample.image)).tolist()
        for sample in read_images(tmp_path / "a.h5", PlaneChoice((), ("noise_map",)))
    ]
    assert bad == [[], [], [], [[1, 2, 2]]] + [[]] * 16
    holes = np.ones((2, 20, 24), np.float32)
    holes[0, 1, 1] = holes[1, 2, 2] = 0
    names = {"VIS": _CUBE[0], "NIR_Y": _CUBE[1], "VIS_RMS": holes[0], "NIR_Y_RMS": holes[1]}
    np.savez(tmp_path / "a.npz", **names)
    sample = _read(tmp_path / "a.npz", "VIS", "NIR_Y", noise=("VIS_RMS", "NIR_Y_RMS"))
    assert np.argwhere(np.isnan(sample.image)).tolist() == [[0, 1, 1], [1, 2, 2]]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (("RMS",), "noise=RMS: no plane of this name"),
        (("SMALL",), r"the noise is of shape \(1, 5, 5\) but the image of \(1, 20, 24\)"),
        (("A", "B"), "noise=A,B for 1 planes; give one for all or one for each"),
    ],
)
def test_noise_that_does_not_fit(tmp_path, noise, message):
    with pytest.raises(UnusableImage, match=message):
        _read(_units(tmp_path, "SCI", "A", "B", SMALL=(5, 5)), noise=noise)
    np.save(tmp_path / "a.npy", _CUBE[0])
    with pytest.raises(UnusableImage, match="of a file that has no named planes; leave it out"):
        _read(tmp_path / "a.npy", noise=noise)


@pytest.mark.parametrize(
    ("header", "sigma"),
    [
        ({"EXTNAME": "RMS"}, 4.0),
        ({"EXTNAME": "VARIANCE"}, 2.0),
        ({"EXTNAME": "IVAR"}, 0.5),
        ({"EXTTYPE": "VARIANCE"}, 2.0),
        ({"EXTNAME": "ERRORS", "HDUCLAS2": "ERROR", "HDUCLAS3": "INVMSE"}, 0.5),
        ({"EXTNAME": "WHT"}, None),
    ],
)
def test_noise_is_measured_over_the_good_pixels(tmp_path, header, sigma):
    noise = np.full((20, 24), 4, np.float32)
    noise[:9], noise[9] = 0, 1e9  # not measured, and a bright star
    unit = fits.ImageHDU(noise)
    unit.header.update(header)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(_CUBE, name="SCI"), unit]).writeto(tmp_path / "a.fits")
    found = _read(tmp_path / "a.fits", noise=(2,)).noise
    assert (found is None) if sigma is None else found.tolist() == [sigma] * len(_CUBE)


def test_noise_of_the_channels_that_are_chosen(tmp_path):
    planes = np.arange(1, 4)[:, None, None] * np.ones((3, 20, 24), np.float32)
    np.savez(tmp_path / "a.npz", image=_RNG.normal(size=(3, 20, 24)), noise_map=planes)
    (sample,) = read_images(tmp_path / "a.npz", PlaneChoice(("image",), ("noise_map",)))
    assert sample.noise.tolist() == [1, 2, 3]


def test_an_image_is_not_its_own_noise(tmp_path):
    with pytest.raises(UnusableImage, match="noise=SCI is the image itself; name the plane of its noise"):
        _read(_units(tmp_path, "SCI"), noise=("SCI",))


@pytest.mark.parametrize("suffix", [".fits.fz", ".fit", ".fts", ".fit.fz"])
def test_compressed_images_beside_tables(tmp_path, suffix):
    table = fits.BinTableHDU.from_columns([fits.Column(name="z", format="E", array=np.zeros(3))], name="CATALOG")
    images = [
        fits.CompImageHDU((_CUBE[i] * 100).astype(np.int16), name=name) for i, name in enumerate(["MASK", "IMAGE"])
    ]
    fits.HDUList([fits.PrimaryHDU(), table, *images]).writeto(tmp_path / f"a{suffix}")
    sample = _read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(sample.image, (_CUBE[1:2] * 100).astype(np.int16))
    assert sample.left_out == ("MASK",)


def test_compressed_units_without_names_are_unnamed(tmp_path):
    units = [fits.CompImageHDU((_CUBE[i] * 100).astype(np.int16)) for i in range(2)]
    fits.HDUList([fits.PrimaryHDU(), *units]).writeto(tmp_path / "a.fits.fz")
    with pytest.raises(UnusableImage, match=r"2 planes in the file \(1, 2\)"):
        _read(tmp_path / "a.fits.fz")
    fits.HDUList([fits.PrimaryHDU(), units[1]]).writeto(tmp_path / "b.fits.fz")
    np.testing.assert_array_equal(_read(tmp_path / "b.fits.fz", "VIS").image, (_CUBE[1:2] * 100).astype(np.int16))


def test_names_between_commas():
    assert plane_names("VIS, NIR_Y,3") == ("VIS", "NIR_Y", 3)


def test_the_line_about_planes_that_are_left_out():
    assert left_out_line({"SEG": 1, "RMS": 12}) == "planes kept out of the images: RMS (12), SEG (1)"
    many = {f"plane {i:02d}": 1 for i in range(20)}
    assert left_out_line(many).endswith("plane 15 (1) and 4 others")
