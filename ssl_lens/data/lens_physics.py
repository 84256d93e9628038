"""One simulated strong lens: what is drawn, how light is bent, and what a camera makes of it.

After DeepLense (Alexander et al. 2020, arXiv:1909.07346; "Model I" of github.com/mwt5345/DeepLenseSim) on lenstronomy.
Differs: Einstein radii from angular-diameter distances (1.66 arcsec for 1e12 Msun, not 1.28); a Poisson number of
subhalos; random orientation of lens, shear and source; noise is added once; pixels are supersampled. So that neither
the ring's size nor its brightness tells the class, the halo gives up the mass that substructure adds inside the ring,
and every lens has the same total flux instead of the same source.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter

CLASSES = ("axion", "cdm", "no_sub")

HALO_MASS_MSUN = 1e12  # projected, inside the Einstein radius
SOURCE_OFFSET_ARCSEC = 0.35
SOURCE_RADIUS_ARCSEC = 0.25  # holds half of the light
_SOURCE_SERSIC_INDEX = 1.0  # an exponential disc
_LENS_REDSHIFT, _SOURCE_REDSHIFT = 0.5, 1.0
_LENS_ELLIPTICITY, _SHEAR, _SOURCE_ELLIPTICITY = 0.1, 0.05, 0.14  # moduli

_MEAN_SUBHALOS, _SUBHALO_MASS_MSUN, _SUBHALO_RADIUS_ARCSEC = 25, (1e6, 1e10), (0.25, 2.0)
_VORTEX_MASS_MSUN, _VORTEX_POINTS, _LOG10_AXION_MASS_EV = 3e10, 100, (-24.0, -22.0)

_PSF_FWHM_ARCSEC = 0.087
_SUPERSAMPLING = 2
# With these the brightest pixel of a lens has a signal-to-noise ratio of about 25 at any pixel scale.
_LIGHT_ARCSEC2_PER_S, _BACKGROUND_RMS_PER_S, _LOG10_EXPOSURE_S = 1.1, 0.01, (3.0, 3.5)


@dataclass(frozen=True)
class Lens:
    """All that was drawn for one lens but the noise."""

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
    point_masses: np.ndarray  # [P, 3]: mass_msun, x_arcsec, y_arcsec

    @property
    def halo_mass_msun(self) -> float:
        """Mass of the smooth halo inside the ring: what the substructure leaves of `HALO_MASS_MSUN`."""
        mass, x, y = self.point_masses.T
        return HALO_MASS_MSUN - float(mass[np.hypot(x, y) < einstein_radius_arcsec(HALO_MASS_MSUN)].sum())


def einstein_radius_arcsec(mass_msun: float | np.ndarray) -> float | np.ndarray:
    """Angle in arcsec that encloses `mass_msun` in projection: sqrt(4 G M / c^2 * D_ls / (D_l D_s))."""
    return np.sqrt(mass_msun * _einstein_arcsec2_per_msun())


@functools.cache
def _einstein_arcsec2_per_msun() -> float:
    cosmology = FlatLambdaCDM(H0=70, Om0=0.3)
    comoving_lens = cosmology.comoving_distance(_LENS_REDSHIFT)
    comoving_source = cosmology.comoving_distance(_SOURCE_REDSHIFT)
    to_lens, to_source = comoving_lens / (1 + _LENS_REDSHIFT), comoving_source / (1 + _SOURCE_REDSHIFT)
    between = (comoving_source - comoving_lens) / (1 + _SOURCE_REDSHIFT)  # as space is flat
    area = 4 * constants.G * constants.M_sun / constants.c**2 * between / (to_lens * to_source)
    return float(area.to_value(units.dimensionless_unscaled)) * units.rad.to(units.arcsec) ** 2


def draw_lens(rng: np.random.Generator, kind: str, subhalo_slope: float) -> Lens:
    """Draws a lens of class `kind`; `subhalo_slope` is the s of dN/dm ~ m^s."""
    lens_e1, lens_e2 = _random_direction(rng, _LENS_ELLIPTICITY)
    gamma1, gamma2 = _random_direction(rng, _SHEAR)
    source_e1, source_e2 = _random_direction(rng, _SOURCE_ELLIPTICITY)
    source_x, source_y = rng.uniform(-SOURCE_OFFSET_ARCSEC, SOURCE_OFFSET_ARCSEC, size=2)
    exposure = 10 ** rng.uniform(*_LOG10_EXPOSURE_S)
    axion_mass, point_masses = np.nan, np.empty((0, 3))
    if kind == "cdm":
        point_masses = _draw_subhalos(rng, subhalo_slope)
    elif kind == "axion":
        axion_mass = 10 ** rng.uniform(*_LOG10_AXION_MASS_EV)
        point_masses = vortex(axion_mass, angle_rad=rng.uniform(0, np.pi))
    else:
        assert kind == "no_sub"
    return Lens(
        lens_e1, lens_e2, gamma1, gamma2, source_x, source_y, source_e1, source_e2, exposure, axion_mass, point_masses
    )


def vortex(axion_mass_ev: float, angle_rad: float) -> np.ndarray:
    """An axion vortex as equal point masses [100, 3] on a line through the centre, as long as the de Broglie wave."""
    half_length_arcsec = 0.06 * 1e-22 / (2 * axion_mass_ev)
    along = np.linspace(-half_length_arcsec, half_length_arcsec, _VORTEX_POINTS)
    mass = np.full(_VORTEX_POINTS, _VORTEX_MASS_MSUN / _VORTEX_POINTS)
    return np.stack([mass, along * np.cos(angle_rad), along * np.sin(angle_rad)], axis=1)


def _draw_subhalos(rng: np.random.Generator, slope: float) -> np.ndarray:
    count = rng.poisson(_MEAN_SUBHALOS)
    low, high = np.power(_SUBHALO_MASS_MSUN, slope + 1)
    mass = (low + (high - low) * rng.uniform(size=count)) ** (1 / (slope + 1))
    radius, angle = rng.uniform(*_SUBHALO_RADIUS_ARCSEC, size=count), rng.uniform(0, 2 * np.pi, size=count)
    return np.stack([mass, radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _random_direction(rng: np.random.Generator, modulus: float) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    return modulus * np.cos(angle), modulus * np.sin(angle)


class Telescope:
    """Grid, lens and light models that all images share, set up once."""

    def __init__(self, image_size: int, pixel_scale_arcsec: float) -> None:
        self._pixel_area_arcsec2 = pixel_scale_arcsec**2
        self._side = image_size * _SUPERSAMPLING
        step = pixel_scale_arcsec / _SUPERSAMPLING
        axis = (np.arange(self._side) - (self._side - 1) / 2) * step
        self.x, self.y = (coordinate.ravel() for coordinate in np.meshgrid(axis, axis))  # arcsec
        self._psf_sigma = _PSF_FWHM_ARCSEC / np.sqrt(8 * np.log(2)) / step
        self._halo = LensModel(["SIE", "SHEAR"])
        self._light = LightModel(["SERSIC_ELLIPSE"])

    def deflection(self, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
        """Deflection in arcsec, x and y, of the rays through every point of the supersampled grid."""
        halo = {
            "theta_E": einstein_radius_arcsec(lens.halo_mass_msun),
            "e1": lens.lens_e1,
            "e2": lens.lens_e2,
            "center_x": 0.0,
            "center_y": 0.0,
        }
        shear = {"gamma1": lens.gamma1, "gamma2": lens.gamma2}
        alpha_x, alpha_y = self._halo.alpha(self.x, self.y, [halo, shear])
        # Mass by mass the grid stays in the processor's cache: four times faster than all masses at once.
        for mass, x, y in lens.point_masses:
            dx, dy = self.x - x, self.y - y
            pull = einstein_radius_arcsec(mass) ** 2 / np.maximum(dx * dx + dy * dy, 1e-12)
            alpha_x += pull * dx
            alpha_y += pull * dy
        return alpha_x, alpha_y

    def lensed_light(self, lens: Lens) -> np.ndarray:
        """Lensed source behind the PSF, [S, S], in units of its surface brightness at the half-light radius."""
        alpha_x, alpha_y = self.deflection(lens)
        source = {
            "amp": 1.0,
            "R_sersic": SOURCE_RADIUS_ARCSEC,
            "n_sersic": _SOURCE_SERSIC_INDEX,
            "e1": lens.source_e1,
            "e2": lens.source_e2,
            "center_x": lens.source_x_arcsec,
            "center_y": lens.source_y_arcsec,
        }
        light = self._light.surface_brightness(self.x - alpha_x, self.y - alpha_y, [source])
        blurred = gaussian_filter(light.reshape(self._side, self._side), self._psf_sigma, truncate=4)
        size = self._side // _SUPERSAMPLING
        return blurred.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean(axis=(1, 3))

    def flux(self, lens: Lens) -> np.ndarray:
        """Noise-free image [S, S] in counts per second and pixel; its sum is the same for every lens."""
        light = self.lensed_light(lens)
        return light * (_LIGHT_ARCSEC2_PER_S / self._pixel_area_arcsec2 / light.sum())

    def observe(self, lens: Lens, rng: np.random.Generator) -> np.ndarray:
        """Image [1, S, S] in counts per second, float32, with photon noise and a subtracted sky's noise."""
        photons = rng.poisson(self.flux(lens) * lens.exposure_s) / lens.exposure_s
        sky = rng.normal(0.0, _BACKGROUND_RMS_PER_S, size=photons.shape)
        return (photons + sky).astype(np.float32)[None]
