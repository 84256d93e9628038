"""What the name of a plane, an array or a file says of it: flux, flux in a band, or noise, a mask, a PSF, a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["flux", "other", "unknown"]
BadWhere: TypeAlias = Literal["nonzero", "zero"]
Noise: TypeAlias = Literal["sigma", "variance", "inverse variance"]


def _vocabulary(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FLUX = _vocabulary(
    "sci science image images img imgs data flux fluxes primary cutout cutouts stamp stamps coadd calexp mosaic bgsub "
    "drz drc pixels counts rate intensity"
)
_OTHER = _vocabulary(
    "err errors uncert uncertainty unc std stdev stddev inverse invvar weights wgt weightmap noisemap varmap "
    "rmsmap errmap errormap masks maskbits msk dq dqm flg flagmap quality qual bpm badpix badpixel badpixels "
    "goodpix goodpixel goodpixels bitmask seg segm segmap segmentation kernel prf lsf exp exptime exposure "
    "exposures expmap time samp samples nexp coverage cov con ctx context depth bkg bck bg background backgrounds "
    "bgmod sky model models residual residuals resid chi area wcsdvarr wavelength wave resolution"
)
_OTHER_ENDINGS = (
    *("err", "error", "var", "variance", "variances", "rms", "sigma", "noise", "wht", "weight"),
    *("mask", "flag", "flags", "psf", "psfs", "imarr"),
)
# What is left once one of them was taken away is flux again: `sky_subtracted`, `psf_matched`.
_UNDONE = _vocabulary("sub subtracted free removed convolved matched corrected weighted masked without")
_MASK = _vocabulary("masks maskbits msk dq dqm flg flagmap quality qual bpm badpix bad badpixel badpixels bitmask bits")
_MASK_ENDINGS = ("mask", "flag", "flags")
_GOOD = re.compile(r"good|usable|unmasked|valid(?!at)")
# Bits of the masks of LSST and HSC that say nothing against a pixel, as it was measured.
_HARMLESS_BITS = _vocabulary(
    "DETECTED DETECTED_NEGATIVE NOT_DEBLENDED BRIGHT_OBJECT INEXACT_PSF CLIPPED REJECTED SENSOR_EDGE INJECTED "
    "INJECTED_CORE INJECTED_TEMPLATE FAKE"
)
_VARIANCE = ("var", "variance", "variances", "varmap", "mse")
_SIGMA = (
    *("sigma", "rms", "rmsmap", "rmse", "noise", "noisemap", "err", "error", "errors", "errmap", "errormap"),
    *("std", "stdev", "stddev", "unc", "uncert", "uncertainty"),
)
_LABEL = _vocabulary(
    "label labels lbl lbls class classes cls target targets ans answer answers category categories truth y"
)
_SUBSETS = _vocabulary("train training val valid validation test testing id ids name names index")

_WAVELENGTHS_NM = {
    **{"fuv": 150, "nuv": 230, "u": 360, "b": 440, "g": 480, "v": 550, "r": 625, "vis": 715, "i": 770, "z": 900},
    **{"y": 1000, "j": 1230, "h": 1640, "ks": 2150, "k": 2190, "w1": 3400, "w2": 4600, "w3": 12000, "w4": 22000},
}
_NIRCAM_LONG = frozenset((250, 277, 300, 322, 335, 356, 360, 410, 430, 444, 460, 480))  # F277W: 2770 nm; F275W: 275 nm
_INSTRUMENTS = (
    "euclid|euc|nisp|nir|hsc|decam|decals|des|ls|sdss|cfhtls|cfht|megacam|kids|vst|vista|viking|ukidss|panstarrs|ps1|"
    "lsst|rubin|hst|acs|wfc3|wfc|uvis|ir|jwst|nircam|wise|galex|subaru|ztf|roman|wfi"
)
_FILTER = r"f\d{3,4}(?:w2?|m|n|lp|x)|vis|nuv|fuv|nb\d{3,4}|w[1-4]|ks|[ugrizyjhkbv]"
_BAND = re.compile(
    rf"(?<![A-Za-z0-9])(?:"
    rf"(?P<prefix>(?:(?:{_INSTRUMENTS})[-_. ]?)+)?(?P<filter>{_FILTER})(?:(?<=hsc[-_. ][ri])2)?(?:[-_. ]?band)?"
    rf"|(?:band|filter|channel|ch)[-_. ]?(?P<named>\d+|{_FILTER})"
    rf")(?![A-Za-z0-9])",
    re.IGNORECASE,
)


class Band(NamedTuple):
    """A band that a text names.

    Attributes:
        name: as it is written, such as NIR_Y.
        key: the same for every way to write it, such as niry.
        wavelength_nm: by which bands are put in order; of numbered ones the number.
        is_letter: whether a single letter is all there is, which may mean something else.
        start, end: where in the text.
    """

    name: str
    key: str
    wavelength_nm: float
    is_letter: bool
    start: int
    end: int


def bands_in(text: str) -> Iterator[Band]:
    """The bands that a text names as words of their own: `HE0435_F814W.fits`, `NIR_Y`, `x-HSC-G`, `g-band`, `Band2`."""
    for found in _BAND.finditer(text):
        of = (found["filter"] or found["named"]).lower()
        key = re.sub(r"[-_. ]", "", found.group().lower())
        is_letter = len(found.group()) == 1
        yield Band(found.group(), key, _wavelength_nm(of), is_letter, found.start(), found.end())


def kind_of(name: str) -> Kind:
    """What a plane's or an array's name says; parts of it are separated by `/`.

    Bands are flux, but a single letter may be anything, so it is unknown: see `band_of`.
    """
    parts = name.split("/")
    if any(is_other(part) for part in parts):
        return "other"
    band = band_of(parts[-1])
    words = _words(parts[-1])
    if (band is not None and not band.is_letter) or (words and all(word in _FLUX for word in words)):
        return "flux"
    return "unknown"


def is_other(name: str) -> bool:
    """Whether a name is that of noise, a mask, a PSF, a background, a model: what belongs to an image and is none."""
    words = _words(name)
    return not _UNDONE.intersection(words) and any(word in _OTHER or word.endswith(_OTHER_ENDINGS) for word in words)


def noise_kind(name: str) -> Noise | None:
    """What a plane of noise of this name holds for a pixel; None where the name leaves it open, as of a weight.

    Of the parts of the name, separated by `/`, the last one that says it counts.
    """
    return next((kind for part in reversed(name.split("/")) if (kind := _noise_kind(_words(part))) is not None), None)


def _noise_kind(words: list[str]) -> Noise | None:
    is_variance = any(word.endswith(_VARIANCE) for word in words)
    if any(word.startswith("inv") or word == "ivar" for word in words):
        return "inverse variance" if is_variance else None
    if any(re.search("signal|snr|log|w(?:ei)?gh?ts?$", word) for word in words):
        return None
    if is_variance:
        return "variance"
    return "sigma" if any(word.endswith(_SIGMA) for word in words) else None


def is_mask(name: str) -> bool:
    """Whether a name is surely that of a mask or of quality flags; a segmentation, which numbers objects, is none."""
    words = _words(name)
    return not any(word.startswith("seg") for word in words) and any(
        word in _MASK or word.endswith(_MASK_ENDINGS) for word in words
    )


def bad_where(name: str) -> BadWhere | None:
    """Which pixels are bad in a mask of this name; None if it is the name of something else."""
    words = _words(name.rpartition("/")[2])
    if any(_GOOD.match(word) for word in words):
        return "zero"
    return "nonzero" if is_mask(name) or kind_of(name) == "unknown" else None


def is_harmless_bit(name: str) -> bool:
    """Whether a pixel of a mask that has the bit of this name was measured nevertheless."""
    return name.upper() in _HARMLESS_BITS


def band_of(name: str) -> Band | None:
    """The one band that a name stands for; a single letter only where the rest says no more than `image`."""
    found = list(bands_in(name.rpartition("/")[2]))
    if len(found) != 1:
        return None
    (band,) = found
    rest = _words(name[: band.start] + " " + name[band.end :])
    return band if not band.is_letter or all(word in _FLUX for word in rest) else None


def is_label(name: str) -> bool:
    """Whether an array of this name holds the classes of images, such as `y_train`."""
    words = [word for word in _words(name.rpartition("/")[2]) if word not in _SUBSETS | _FLUX]
    return bool(words) and all(word in _LABEL for word in words)


def without_kind(stem: str) -> str:
    """A file's stem without the words that say which plane it is: `HE0435_noise_map` and `HE0435_sci` are `he0435`."""
    kept = [word for word in re.findall(r"[a-z]+|\d+", stem.lower()) if not _says_which(word)]
    return "_".join(kept)


def _says_which(word: str) -> bool:
    return word in _FLUX or word in _OTHER or word in _UNDONE or word == "map" or word.endswith(_OTHER_ENDINGS)


def _words(name: str) -> list[str]:
    """Its words in lower case; numbers, which count, are none."""
    return re.findall(r"[a-z]+(?:\d+[a-z]+)*", name.lower())


def _wavelength_nm(of: str) -> float:
    if of in _WAVELENGTHS_NM:
        return _WAVELENGTHS_NM[of]
    number = int(re.findall(r"\d+", of)[0])
    if of.startswith("f") and (number < 200 or number in _NIRCAM_LONG):
        return 10 * number
    return number
