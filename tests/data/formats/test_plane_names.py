import pytest

from ssl_lens.data.formats.plane_names import band_of, bands_in, is_label, is_other, kind_of, noise_kind, without_kind

FLUX = ["SCI", "IMAGE", "images", "image_data", "group/images", "VIS", "NIR_Y", "VIS.SCI", "SCI_F814W", "HSC-G", "Ks"]
FLUX += ["EUC_MER_BGSUB-MOSAIC-VIS", "decam-g", "g-band", "band_3", "sci1"]
OTHER = ["VARIANCE", "NOISE_MAP", "SEG", "MASK_2", "wht", "PSF", "DQ", "SCI_IVAR", "NIR_Y_RMS", "VIS_FLAG", "INVVAR"]
OTHER += ["exposure_time", "background_rms", "psf/image", "VAR_POISSON", "chi2", "BKG", "model", "noise_map", "sigma"]
OTHER += ["D2IMARR", "weights", "segmentation_map", "OBJMASK", "sky"]
UNKNOWN = ["x", "arr_0", "lens_light", "g", "R", "", "sky_subtracted", "psf_matched"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "flux") for name in FLUX),
        *((name, "other") for name in OTHER),
        *((name, "unknown") for name in UNKNOWN),
    ],
)
def test_what_a_name_says(name, kind):
    assert kind_of(name) == kind
    assert is_other(name.rpartition("/")[0] or name) == (kind == "other")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("HE0435_F814W", ["f814w"]),
        ("x-HSC-R2", ["hscr2"]),
        ("J_0012_g", ["j", "g"]),
        ("lens.NIR_Y", ["niry"]),
        ("hst_acs_f606w", ["hstacsf606w"]),
        ("gri_image", []),
        ("J0012g", []),
        ("Band10", ["band10"]),
        ("x_ch2", ["ch2"]),
    ],
)
def test_bands_are_words_of_their_own(text, found):
    assert [band.key for band in bands_in(text)] == found


def test_bands_are_ordered_by_wavelength():
    names = ["NIR_H", "F160W", "VIS", "g", "u", "F814W", "NIR_Y", "F275W", "r", "i", "z", "DECAM_z"]
    bands = sorted((band_of(name) for name in names), key=lambda band: band.wavelength_nm)
    order = ["F275W", "u", "g", "r", "VIS", "i", "F814W", "z", "DECAM_z", "NIR_Y", "F160W", "NIR_H"]
    assert [band.name for band in bands] == order
    assert [band_of(name).wavelength_nm for name in ("F150W", "F277W", "F444W", "F275W")] == [1500, 2770, 4440, 275]


@pytest.mark.parametrize(
    ("name", "labels"),
    [("y", True), ("y_train", True), ("labels", True), ("class", True), ("ans", True), ("image_labels", True)]
    + [("x", False), ("image", False), ("mass", False), ("train", False), ("class_weights", False)],
)
def test_labels(name, labels):
    assert is_label(name) == labels


@pytest.mark.parametrize(
    ("stem", "rest"),
    [("HE0435_noise_map", "he_0435"), ("HE0435_sci", "he_0435"), ("data", ""), ("psf", ""), ("data01", "01")],
)
def test_a_stem_without_its_kind(stem, rest):
    assert without_kind(stem) == rest


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("sigma", "RMS NOISE_MAP VIS_RMS err ERROR sigma noise g_noise UNCERT weight/noise_map std"),
        ("variance", "VARIANCE var VAR_POISSON noise_variance varmap MSE"),
        ("inverse variance", "SCI_IVAR invvar INVERSE_VARIANCE inv_var inverse_variance_weight INVMSE"),
        (None, "WHT weight weight_map rms_weight EXPTIME signal_to_noise SNR log_noise inverse_sigma mask SCI x"),
    ],
)
def test_what_noise_holds(kind, names):
    assert {name: noise_kind(name) for name in names.split()} == dict.fromkeys(names.split(), kind)
