"""How light is bent, and what a telescope makes of it.

After DeepLense (Alexander et al. 2020, arXiv:1909.07346; github.com/mwt5345/DeepLenseSim) on lenstronomy. Differs in
more than what `Parameters` lets one choose: pixels are supersampled; and so that neither the ring's size nor its
brightness reveals the class, the halo gives up the mass that substructure adds inside the ring, and every lens has the
same total flux instead of the same source.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from scipy.ndimage import gaussian_filter1d

from ssl_lens.simulation.galaxies import Galaxies
from ssl_lens.simulation.instrument import Instrument
from ssl_lens.simulation.lens import Lens
from ssl_lens.simulation.point_masses import add_deflection

_SUPERSAMPLING = 2
_BLOCK = 8192  # points for lenstronomy at a time: what it computes with them stays in the processor's cache


class Telescope:
    """Grid, lens and light models that all images share, set up once.

    Args:
        source_colour_mag, lens_colour_mag: magnitude of source and lens in each of B bands, minus the first band's.
        galaxies: real ones, needed by lenses that have one for a source.
    """

    def __init__(
        self,
        instrument: Instrument,
        source_colour_mag: Sequence[float] = (0.0,),
        lens_colour_mag: Sequence[float] = (0.0,),
        galaxies: Galaxies | None = None,
    ) -> None:
        self.instrument, self._galaxies = instrument, galaxies
        self._source_colour, self._lens_colour = (
            10 ** (-0.4 * np.array(colour_mag)) for colour_mag in (source_colour_mag, lens_colour_mag)
        )
        self._side = instrument.image_size * _SUPERSAMPLING
        step = instrument.pixel_scale_arcsec / _SUPERSAMPLING
        axis = (np.arange(self._side) - (self._side - 1) / 2) * step
        self.x, self.y = (coordinate.ravel() for coordinate in np.meshgrid(axis, axis))  # arcsec
        self._blocks = [slice(start, start + _BLOCK) for start in range(0, self.x.size, _BLOCK)]
        self._step = step  # arcsec
        self._halo = LensModel(["SIE", "SHEAR"])
        self._sersic = LightModel(["SERSIC_ELLIPSE"])

    def deflection(self, lens: Lens, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Deflection in arcsec, x and y, of the rays that arrive from points x, y [N] of the sky."""
        halo = {
            "theta_E": lens.halo_einstein_radius_arcsec,
            "e1": lens.lens_e1,
            "e2": lens.lens_e2,
            "center_x": 0.0,
            "center_y": 0.0,
        }
        alpha_x, alpha_y = self._halo.alpha(x, y, [halo, {"gamma1": lens.gamma1, "gamma2": lens.gamma2}])
        if len(lens.point_masses):
            mass, mass_x, mass_y = np.ascontiguousarray(lens.point_masses.T)
            add_deflection(alpha_x, alpha_y, x, y, mass * lens.arcsec2_per_msun, mass_x, mass_y)
        return alpha_x, alpha_y

    def lensed_light(self, lens: Lens) -> np.ndarray:
        """Lensed source behind the PSF, [S, S], in units of its surface brightness at the half-light radius.

        Of a real galaxy, whose half-light radius is made the lens's `source_radius_arcsec`: with a total of 1.
        """
        if lens.source_image:  # a new model, as it keeps its image
            model, source = LightModel(["INTERPOL"]), self._galaxy(lens)
        else:
            model, source = self._sersic, _sersic_source(lens)
        light = np.empty_like(self.x)
        for block in self._blocks:
            x, y = self.x[block], self.y[block]
            alpha_x, alpha_y = self.deflection(lens, x, y)
            light[block] = model.surface_brightness(x - alpha_x, y - alpha_y, [source])
        return self._seen(light, lens.psf_fwhm_arcsec)

    def _galaxy(self, lens: Lens) -> dict[str, float | np.ndarray]:
        assert self._galaxies is not None
        galaxy = self._galaxies.galaxy(lens.source_image)
        scale = lens.source_radius_arcsec / galaxy.half_light_radius_px
        return {
            "image": galaxy.light / scale**2,
            "amp": 1.0,
            "center_x": lens.source_x_arcsec,
            "center_y": lens.source_y_arcsec,
            "phi_G": lens.source_angle_rad,
            "scale": scale,
        }

    def lens_light(self, lens: Lens) -> np.ndarray:
        """The lens galaxy behind the PSF, [S, S], with the ellipticity of its mass, at half-light brightness 1."""
        profile = {
            "amp": 1.0,
            "R_sersic": lens.lens_light_radius_arcsec,
            "n_sersic": lens.lens_light_sersic_index,
            "e1": lens.lens_e1,
            "e2": lens.lens_e2,
            "center_x": 0.0,
            "center_y": 0.0,
        }
        light = [self._sersic.surface_brightness(self.x[block], self.y[block], [profile]) for block in self._blocks]
        return self._seen(np.concatenate(light), lens.psf_fwhm_arcsec)

    def _seen(self, light: np.ndarray, psf_fwhm_arcsec: float) -> np.ndarray:
        """Light [N] at the points of the grid, behind the PSF and in pixels, [S, S]."""
        sigma = psf_fwhm_arcsec / np.sqrt(8 * np.log(2)) / self._step
        columns = light.reshape(self._side, self._side)
        rows = _binned(gaussian_filter1d(columns, sigma, axis=0, truncate=4))
        return _binned(gaussian_filter1d(rows, sigma, axis=1, truncate=4).T).T

    def flux(self, lens: Lens) -> np.ndarray:
        """Noise-free image [B, S, S] in counts per second and pixel; its sum does not depend on the lensing."""
        lensed_flux = self.instrument.lensed_flux_per_s * lens.brightness
        light = self.lensed_light(lens)
        image = light * (lensed_flux / light.sum()) * self._source_colour[:, None, None]
        if lens.lens_light:
            light = self.lens_light(lens)
            image += light * (lens.lens_light * lensed_flux / light.sum()) * self._lens_colour[:, None, None]
        return image

    def background_rms_per_s(self, lens: Lens) -> float:
        """Noise of a pixel without light, counts per second, in the exposure of this lens."""
        camera = self.instrument
        if camera.background_exposure_s is None:
            return camera.background_rms_per_s
        return camera.background_rms_per_s * (camera.background_exposure_s / lens.exposure_s) ** 0.5

    def observe(self, lens: Lens, rng: np.random.Generator) -> np.ndarray:
        """Image [B, S, S] in counts per second, float32, with photon noise and a subtracted sky's noise."""
        flux = self.flux(lens)
        photons = rng.poisson(flux * lens.exposure_s) / lens.exposure_s
        sky = rng.normal(0.0, self.background_rms_per_s(lens), size=photons.shape)
        return (photons + sky).astype(np.float32)

    def observe_as_deeplense(self, lens: Lens, rng: np.random.Generator) -> np.ndarray:
        """Image [B, S, S], float32, as DeepLense's code makes it; see `Parameters.noise`.

        Photon counts from an image that has photon and sky noise already, or twice the flux without any.
        """
        if not self.instrument.noisy_in_deeplense:
            return (2 * self.flux(lens)).astype(np.float32)
        counts = self.observe(lens, rng).astype(np.float64) * lens.exposure_s
        return rng.poisson(counts.clip(min=0)).astype(np.float32)


def _sersic_source(lens: Lens) -> dict[str, float | np.ndarray]:
    return {
        "amp": 1.0,
        "R_sersic": lens.source_radius_arcsec,
        "n_sersic": lens.source_sersic_index,
        "e1": lens.source_e1,
        "e2": lens.source_e2,
        "center_x": lens.source_x_arcsec,
        "center_y": lens.source_y_arcsec,
    }


def _binned(light: np.ndarray) -> np.ndarray:
    """Mean of the samples of each pixel along the first axis: row by row, as numpy's mean is slower by far."""
    return np.asarray(sum(light[first::_SUPERSAMPLING] for first in range(_SUPERSAMPLING))) / _SUPERSAMPLING
