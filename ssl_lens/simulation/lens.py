"""One lens and all that was drawn for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_lens.errors import InputError
from ssl_lens.simulation.cosmology import einstein_arcsec2_per_msun, einstein_radius_arcsec
from ssl_lens.simulation.parameters import Parameters, Redraw
from ssl_lens.simulation.substructure import NO_SUBSTRUCTURE, draw_subhalos, vortex

CLASSES = ("axion", "cdm", "no_sub")
REDRAWN: Mapping[Redraw, tuple[str, ...]] = {
    "source": (
        *("source_x_arcsec", "source_y_arcsec", "source_e1", "source_e2", "source_radius_arcsec"),
        *("source_sersic_index", "source_angle_rad", "source_image", "brightness"),
    ),
    "exposure": ("exposure_s",),
    "lens_light": ("lens_light", "lens_light_radius_arcsec", "lens_light_sersic_index"),
    "psf": ("psf_fwhm_arcsec",),
}  # fields of a lens that another rendering of it may draw again; all others are its mass and where it is


@dataclass(frozen=True)
class Lens:
    """All that was drawn for one lens but the noise; angles in arcsec, ellipticities and shear as lenstronomy's."""

    lens_e1: float
    lens_e2: float
    gamma1: float
    gamma2: float
    source_x_arcsec: float
    source_y_arcsec: float
    source_e1: float
    source_e2: float
    exposure_s: float
    axion_mass_ev: float  # NaN for the other classes
    einstein_radius_arcsec: float  # of all mass inside it
    lens_redshift: float
    source_redshift: float
    source_radius_arcsec: float
    source_sersic_index: float  # NaN for a real galaxy
    source_angle_rad: float  # NaN for a Sersic profile
    source_image: str  # file of a real galaxy; empty for a Sersic profile
    brightness: float
    lens_light: float
    lens_light_radius_arcsec: float
    lens_light_sersic_index: float
    psf_fwhm_arcsec: float
    subhalo_slope: float  # NaN for the other classes
    arcsec2_per_msun: float  # square of the Einstein radius of one solar mass
    point_masses: np.ndarray  # [P, 3]: mass_msun, x_arcsec, y_arcsec

    @property
    def mass_msun(self) -> float:
        """Projected mass inside the ring, the same with substructure as without."""
        return self.einstein_radius_arcsec**2 / self.arcsec2_per_msun

    @property
    def substructure_mass_msun(self) -> float:
        """Mass of the substructure inside the ring."""
        mass, x, y = self.point_masses.T
        return float(mass[np.hypot(x, y) < self.einstein_radius_arcsec].sum())

    @property
    def halo_einstein_radius_arcsec(self) -> float:
        """Of the smooth halo: what the substructure leaves of the mass."""
        halo_mass_msun = self.mass_msun - self.substructure_mass_msun
        return float(einstein_radius_arcsec(halo_mass_msun, self.arcsec2_per_msun))

    @property
    def substructure_mass_fraction(self) -> float:
        """Share of the substructure in the mass inside the ring."""
        return self.substructure_mass_msun / self.mass_msun


def draw_lens(rng: np.random.Generator, kind: str, ranges: Parameters, galaxies: Sequence[str] = ()) -> Lens:
    """Draws a lens of class `kind`; what all classes have is drawn first, and the same for all.

    Args:
        galaxies: files of real galaxies, one of which becomes the source; a Sersic profile if empty.
    Raises: InputError if the substructure outweighs the halo.
    """
    aligned = ranges.orientation == "deeplense"
    lens_e = _vector(rng, ranges.lens_ellipticity, 0.0 if aligned else None)
    shear = _vector(rng, ranges.shear, 0.0 if aligned else None)
    source_e = _vector(rng, ranges.source_ellipticity, 0.75 * np.pi if aligned else None)
    source_x, source_y = rng.uniform(*ranges.source_offset_arcsec, size=2)
    lens_redshift, source_redshift = _even(rng, ranges.lens_redshift), _even(rng, ranges.source_redshift)
    arcsec2_per_msun = einstein_arcsec2_per_msun(
        lens_redshift, source_redshift, as_deeplense=ranges.distances == "deeplense"
    )
    if ranges.einstein_radius_arcsec is None:
        ring = float(einstein_radius_arcsec(_log_even(rng, ranges.halo_mass_msun), arcsec2_per_msun))
    else:
        ring = _even(rng, ranges.einstein_radius_arcsec)
    assert ranges.exposure_s is not None, "the telescope's is to be filled in"
    assert ranges.psf_fwhm_arcsec is not None, "the telescope's is to be filled in"
    exposure_s = _log_even(rng, ranges.exposure_s)
    source_radius_arcsec = _even(rng, ranges.source_radius_arcsec)
    source_sersic_index = np.nan if galaxies else _even(rng, ranges.source_sersic_index)
    source_angle_rad = rng.uniform(0, 2 * np.pi) if galaxies else np.nan
    source_image = galaxies[int(rng.integers(len(galaxies)))] if galaxies else ""
    brightness = _log_even(rng, ranges.brightness)
    lens_light = _even(rng, ranges.lens_light)
    lens_light_radius_arcsec = _even(rng, ranges.lens_light_radius_arcsec)
    lens_light_sersic_index = _even(rng, ranges.lens_light_sersic_index)
    psf_fwhm_arcsec = _even(rng, ranges.psf_fwhm_arcsec)
    axion_mass, slope, point_masses = np.nan, np.nan, NO_SUBSTRUCTURE
    if kind == "cdm":
        slope, count = _even(rng, ranges.subhalo_slope), _even(rng, ranges.subhalo_count)
        number = rng.poisson(count) if ranges.subhalo_scatter == "physical" else round(count)
        point_masses = draw_subhalos(rng, number, slope, ranges.subhalo_mass_msun, ranges.subhalo_radius_arcsec)
    elif kind == "axion":
        axion_mass, mass = _log_even(rng, ranges.axion_mass_ev), _log_even(rng, ranges.vortex_mass_msun)
        point_masses = vortex(axion_mass, rng.uniform(0, np.pi), mass)
    else:
        assert kind == "no_sub"
    lens = Lens(
        *lens_e,
        *shear,
        source_x,
        source_y,
        *source_e,
        exposure_s=exposure_s,
        axion_mass_ev=axion_mass,
        einstein_radius_arcsec=ring,
        lens_redshift=lens_redshift,
        source_redshift=source_redshift,
        source_radius_arcsec=source_radius_arcsec,
        source_sersic_index=source_sersic_index,
        source_angle_rad=source_angle_rad,
        source_image=source_image,
        brightness=brightness,
        lens_light=lens_light,
        lens_light_radius_arcsec=lens_light_radius_arcsec,
        lens_light_sersic_index=lens_light_sersic_index,
        psf_fwhm_arcsec=psf_fwhm_arcsec,
        subhalo_slope=slope,
        arcsec2_per_msun=arcsec2_per_msun,
        point_masses=point_masses,
    )
    if lens.substructure_mass_msun >= lens.mass_msun:
        raise InputError(
            f"substructure of {lens.substructure_mass_msun:.2g} Msun outweighs a halo of {lens.mass_msun:.2g} Msun; "
            "lower subhalo_count, subhalo_mass_msun or vortex_mass_msun"
        )
    return lens


def with_light_of(lens: Lens, other: Lens, redraw: Sequence[Redraw]) -> Lens:
    """The lens, its mass unchanged, with what `redraw` names of another: another rendering of the same lens."""
    return replace(lens, **{name: getattr(other, name) for part in redraw for name in REDRAWN[part]})


def _even(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """An even draw; a fixed parameter takes no random number, so that it changes no other."""
    return ends[0] if ends[0] == ends[1] else rng.uniform(*ends)


def _log_even(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    return ends[0] if ends[0] == ends[1] else 10 ** rng.uniform(*np.log10(ends))


def _vector(rng: np.random.Generator, modulus: tuple[float, float], angle: float | None) -> tuple[float, float]:
    """Both components of an ellipticity or a shear, at a random angle if None."""
    length = _even(rng, modulus)
    angle = rng.uniform(0, 2 * np.pi) if angle is None else angle
    return length * np.cos(angle), length * np.sin(angle)
