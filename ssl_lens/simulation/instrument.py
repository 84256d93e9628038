"""The telescopes of DeepLense's three models."""

from __future__ import annotations

from dataclasses import dataclass

from lenstronomy.SimulationAPI.observation_api import SingleBand
from lenstronomy.SimulationAPI.ObservationConfig.Euclid import Euclid
from lenstronomy.SimulationAPI.ObservationConfig.HST import HST

from ssl_lens.simulation.parameters import Model, Parameters

# With these the brightest pixel of a lens has a signal-to-noise ratio of about 25 at any pixel scale.
_LIGHT_ARCSEC2_PER_S, _BACKGROUND_RMS_PER_S, _EXPOSURE_S = 1.1, 0.01, (1e3, 10**3.5)
_LENSED_MAGNITUDE = 17.3  # DeepLense's source of magnitude 20, magnified 12 times: the mean of its lenses


@dataclass(frozen=True)
class Instrument:
    """Pixels, point-spread function, noise, and how bright a lens is in them.

    Attributes:
        background_rms_per_s: noise of a pixel without light, counts per second, in an exposure of
            `background_exposure_s` (it falls with the root of more exposures), or in any (model_i) if that is None.
        lensed_flux_per_s: of the source's lensed image in the whole cutout.
        noisy_in_deeplense: whether its images of this model have noise.
    """

    image_size: int
    pixel_scale_arcsec: float
    psf_fwhm_arcsec: float
    background_rms_per_s: float
    background_exposure_s: float | None
    exposure_s: tuple[float, float]
    lensed_flux_per_s: float
    noisy_in_deeplense: bool

    def filled(self, ranges: Parameters) -> Parameters:
        """Ranges in which the telescope's own exposure and PSF stand where they give none."""
        exposure_s = ranges.exposure_s or self.exposure_s
        psf_fwhm_arcsec = ranges.psf_fwhm_arcsec or (self.psf_fwhm_arcsec, self.psf_fwhm_arcsec)
        return ranges.model_copy(update={"exposure_s": exposure_s, "psf_fwhm_arcsec": psf_fwhm_arcsec})


def instrument(model: Model, image_size: int | None = None, pixel_scale_arcsec: float | None = None) -> Instrument:
    """The telescope of a model, with other pixels where given.

    model_i: 150 pixels of 0.05 arcsec, Gaussian PSF of 0.087 arcsec. model_ii: 64 pixels of Euclid VIS. model_iii: 64
    pixels of HST WFC3 F160W; both from lenstronomy's observation configurations, photons of the sky in the background.
    """
    if model == "model_i":
        scale = pixel_scale_arcsec or 0.05
        flux = _LIGHT_ARCSEC2_PER_S / scale**2
        return Instrument(image_size or 150, scale, 0.087, _BACKGROUND_RMS_PER_S, None, _EXPOSURE_S, flux, True)
    observation = Euclid("VIS") if model == "model_ii" else HST("WFC3_F160W", psf_type="GAUSSIAN")
    settings = observation.kwargs_single_band()
    if pixel_scale_arcsec:
        settings["pixel_scale"] = pixel_scale_arcsec
    band = SingleBand(**settings)
    return Instrument(
        image_size or 64,
        float(band.pixel_scale),
        float(settings["seeing"]),
        float(band.background_noise),
        float(band.exposure_time),
        (float(band.exposure_time), float(band.exposure_time)),
        float(band.magnitude2cps(_LENSED_MAGNITUDE)),
        False,
    )
