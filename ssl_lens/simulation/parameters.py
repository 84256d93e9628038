"""What may be drawn for a simulated lens: a range for every parameter, and DeepLense's own choices."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssl_lens.errors import InputError


def _low_end_first(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{ends[0]:g},{ends[1]:g} is not a range; write its low end first")
    return ends


_Number = TypeVar("_Number", bound=float)
_Range: TypeAlias = Annotated[tuple[_Number, _Number], AfterValidator(_low_end_first)]
PositiveRange: TypeAlias = _Range[Annotated[float, Field(gt=0)]]
NonNegativeRange: TypeAlias = _Range[Annotated[float, Field(ge=0)]]
SignedRange: TypeAlias = _Range[float]
Ellipticity: TypeAlias = _Range[Annotated[float, Field(ge=0, lt=0.8)]]  # modulus (1 - q) / (1 + q)
SersicIndex: TypeAlias = _Range[Annotated[float, Field(ge=0.4, le=8)]]
Slope: TypeAlias = _Range[Annotated[float, Field(ge=-4, lt=0)]]
Magnitudes: TypeAlias = Annotated[tuple[float, ...], Field(min_length=1)]
Choice: TypeAlias = Literal["physical", "deeplense"]
Redraw: TypeAlias = Literal["source", "exposure", "lens_light", "psf"]  # what renderings of a lens need not share
Model: TypeAlias = Literal["model_i", "model_ii", "model_iii"]  # their telescopes: `instrument`


class Parameters(BaseModel):
    """Ranges (low, high) of everything drawn for a lens; equal ends fix a parameter.

    Drawn evenly, but masses and the exposure evenly in their logarithm. The defaults are DeepLense's values.

    Attributes:
        halo_mass_msun: projected, inside the Einstein radius, substructure included.
        einstein_radius_arcsec: if given, decides instead of `halo_mass_msun`.
        lens_ellipticity, shear, source_ellipticity: moduli; their angles are free.
        source_offset_arcsec: of the source's centre from the lens's, in x and in y.
        exposure_s, psf_fwhm_arcsec: None: the telescope's.
        brightness: of the lensed source, in units of the telescope's default.
        lens_light: flux of the lens galaxy in units of the lensed source's; 0: none.
        source_colour_mag, lens_colour_mag: one band for each number: its magnitude minus the first band's.
        subhalo_count: mean number.
        subhalo_mass_msun, subhalo_radius_arcsec: ends of what every lens's subhalos are drawn from.
        subhalo_slope: s in dN/dm ~ m^s: -1.9, as of cold dark matter and in DeepLense's paper, with which the subhalos
            hold 0.03 % of the mass, and in most lenses change no pixel by a tenth of its noise. DeepLense's code draws
            -0.9, with which they change some by nine times it.
        axion_mass_ev: decides how long a vortex is.
        noise: "deeplense": in model_i photon noise is drawn twice and images are whole counts; in model_ii and
            model_iii there is none, and the flux is doubled (its code adds the image to the image, not the noise).
        orientation: "deeplense": in every image lens and shear along x, the source's (e1, e2) along (-1, 1).
        subhalo_scatter: "deeplense": always the mean number (its code draws a Poisson number and forgets it).
        distances: "deeplense": luminosity instead of angular-diameter distances: 1.28 instead of 1.66 arcsec.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    halo_mass_msun: PositiveRange = (1e12, 1e12)
    einstein_radius_arcsec: PositiveRange | None = None
    lens_redshift: PositiveRange = (0.5, 0.5)
    source_redshift: PositiveRange = (1.0, 1.0)
    lens_ellipticity: Ellipticity = (0.1, 0.1)
    shear: Ellipticity = (0.05, 0.05)
    source_ellipticity: Ellipticity = (0.14, 0.14)
    source_radius_arcsec: PositiveRange = (0.25, 0.25)  # holds half of the light
    source_sersic_index: SersicIndex = (1.0, 1.0)  # an exponential disc
    source_offset_arcsec: SignedRange = (-0.35, 0.35)
    source_colour_mag: Magnitudes = (0.0,)
    brightness: PositiveRange = (1.0, 1.0)
    exposure_s: PositiveRange | None = None
    psf_fwhm_arcsec: PositiveRange | None = None
    lens_light: NonNegativeRange = (0.0, 0.0)
    lens_light_radius_arcsec: PositiveRange = (0.8, 0.8)
    lens_light_sersic_index: SersicIndex = (4.0, 4.0)
    lens_colour_mag: Magnitudes = (0.0,)
    subhalo_count: NonNegativeRange = (25.0, 25.0)
    subhalo_mass_msun: PositiveRange = (1e6, 1e10)
    subhalo_radius_arcsec: NonNegativeRange = (0.25, 2.0)
    subhalo_slope: Slope = (-1.9, -1.9)
    axion_mass_ev: PositiveRange = (1e-24, 1e-22)
    vortex_mass_msun: PositiveRange = (3e10, 3e10)
    noise: Choice = "physical"
    orientation: Choice = "physical"
    subhalo_scatter: Choice = "physical"
    distances: Choice = "physical"

    @model_validator(mode="after")
    def _together(self) -> Parameters:
        if self.source_redshift[0] <= self.lens_redshift[1]:
            raise ValueError(
                f"source_redshift={self.source_redshift[0]:g} is not behind lens_redshift={self.lens_redshift[1]:g}; "
                "raise source_redshift"
            )
        if len(self.source_colour_mag) != len(self.lens_colour_mag):
            raise ValueError(
                f"source_colour_mag has {len(self.source_colour_mag)} bands, lens_colour_mag "
                f"{len(self.lens_colour_mag)}; give both one number for each band"
            )
        return self

    def fingerprint(self) -> str:
        """Changes when any value does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


_CHOICES = tuple(name for name, field in Parameters.model_fields.items() if field.annotation == Choice)
_RANDOMISED: dict[str, object] = {
    "lens_light": (0.0, 0.5),
    "lens_light_radius_arcsec": (0.1, 0.4),
    "source_offset_arcsec": (-0.8, 0.8),
    "source_radius_arcsec": (0.15, 0.5),
    "lens_ellipticity": (0.0, 0.2),
    "source_ellipticity": (0.0, 0.3),
    "shear": (0.0, 0.08),
    "einstein_radius_arcsec": (0.7, 1.6),
    "subhalo_slope": (-0.9, -0.9),
}
_DEEPLENSE: dict[str, object] = dict.fromkeys(_CHOICES, "deeplense") | {"subhalo_slope": (-0.9, -0.9)}


def preset(*, as_deeplense: bool, randomised: bool) -> dict[str, object]:
    """Values of `Parameters` that both choices of `parse_parameters` bring."""
    return (_DEEPLENSE if as_deeplense else {}) | (_RANDOMISED if randomised else {})


def parse_parameters(
    overrides: Sequence[str] = (), *, as_deeplense: bool = False, randomised: bool = False
) -> Parameters:
    """The defaults, changed by overrides `key=low,high`, `key=value`, `key=word` or, for a colour, `key=a,b,c`.

    Args:
        as_deeplense: what DeepLense's code does, where no override says otherwise.
        randomised: wide ranges, of lenses of an unknown telescope and population, where no override says otherwise.
    Raises: InputError: no such key (the nearest is named), not a range, or a value that cannot be.
    """
    values = preset(as_deeplense=as_deeplense, randomised=randomised)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise InputError(f"{override!r} is not key=value; write for example shear=0,0.1")
        if key not in Parameters.model_fields:
            near = difflib.get_close_matches(key, Parameters.model_fields, n=3, cutoff=0.3) or Parameters.model_fields
            raise InputError(f"unknown key {override}; the nearest are {', '.join(near)}")
        values[key] = _value(key, text)
    try:
        return Parameters.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = f"{first['loc'][0]}=" if first["loc"] else ""
        given = f"{first['input']} should be " if key and first["type"] != "value_error" else ""
        message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        raise InputError(f"{key}{given}{message}") from None


def _value(key: str, text: str) -> object:
    if Parameters.model_fields[key].annotation == Choice:
        return text
    try:
        numbers = tuple(float(number) for number in text.split(","))
    except ValueError:
        raise InputError(f"{key}={text} is not a number or low,high; write for example {key}=0.1,0.2") from None
    if key.endswith("_colour_mag"):
        return numbers
    if len(numbers) > 2:
        raise InputError(f"{key}={text} has {len(numbers)} numbers; give one, or low,high")
    return (numbers[0], numbers[-1])
