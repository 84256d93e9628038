import numpy as np
import pytest
from lenstronomy.SimulationAPI.data_api import DataAPI
from lenstronomy.SimulationAPI.ObservationConfig.Euclid import Euclid
from lenstronomy.SimulationAPI.ObservationConfig.HST import HST

from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.parameters import Parameters


def test_the_first_model():
    camera = instrument("model_i")
    assert (camera.image_size, camera.pixel_scale_arcsec, camera.psf_fwhm_arcsec) == (150, 0.05, 0.087)
    assert camera.background_rms_per_s == 0.01
    assert camera.exposure_s == pytest.approx((1000, 3162.28))
    filled = camera.filled(Parameters(psf_fwhm_arcsec=(0.1, 0.3)))
    assert (filled.exposure_s, filled.psf_fwhm_arcsec) == (camera.exposure_s, (0.1, 0.3))
    assert camera.filled(Parameters()).psf_fwhm_arcsec == (0.087, 0.087)
    other = instrument("model_i", 64, 0.1)
    assert (other.image_size, other.pixel_scale_arcsec) == (64, 0.1)
    assert other.lensed_flux_per_s == pytest.approx(camera.lensed_flux_per_s / 4)


@pytest.mark.parametrize(
    ("model", "observation"),
    [("model_ii", Euclid("VIS")), ("model_iii", HST("WFC3_F160W", psf_type="GAUSSIAN"))],
)
def test_the_other_models_are_those_of_lenstronomy(model, observation):
    camera = instrument(model)
    theirs = DataAPI(64, **observation.kwargs_single_band())
    assert camera.image_size == 64
    assert camera.pixel_scale_arcsec == theirs.pixel_scale
    assert camera.background_rms_per_s == theirs.background_noise
    assert camera.exposure_s == (theirs.exposure_time, theirs.exposure_time)
    assert camera.psf_fwhm_arcsec == theirs.psf_class.fwhm
    # A magnitude of 17.3 is 2.5 log10(12) brighter than DeepLense's source of 20
    assert camera.lensed_flux_per_s / theirs.magnitude2cps(20) == pytest.approx(12, rel=0.01)


def test_larger_pixels_of_a_telescope_see_more_sky():
    small, large = instrument("model_ii"), instrument("model_ii", 32, 0.202)
    read_variance = 4 * 4.2**2 / 2264**2  # of four exposures, counts per second
    sky = [camera.background_rms_per_s**2 - read_variance for camera in (small, large)]
    assert sky[1] == pytest.approx(4 * sky[0], rel=1e-6)
    assert np.sqrt(sky[0]) < small.background_rms_per_s
