from dataclasses import replace

import numpy as np
import pytest
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.util import make_grid_with_coordtransform

from ssl_lens.simulation import telescope as telescope_module
from ssl_lens.simulation.cosmology import einstein_radius_arcsec
from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import CLASSES, Lens, draw_lens
from ssl_lens.simulation.parameters import Parameters
from ssl_lens.simulation.telescope import Telescope

_THETA_E = 1.66452  # arcsec, of 1e12 Msun between z = 0.5 and 1 for H0 = 70, Om0 = 0.3
_RANGES = instrument("model_i").filled(Parameters())


def _draw(kind: str, seed: int = 0) -> Lens:
    return draw_lens(np.random.default_rng(seed), kind, _RANGES)


def _telescope(image_size: int = 32, pixel_scale_arcsec: float = 0.2) -> Telescope:
    return Telescope(instrument("model_i", image_size, pixel_scale_arcsec))


def _deflection(telescope: Telescope, lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    return telescope.deflection(lens, telescope.x, telescope.y)


def _round_and_centred():
    """A singular isothermal sphere in front of a round source, for which everything has a closed form."""
    zero = dict.fromkeys(("lens_e1", "lens_e2", "gamma1", "gamma2", "source_e1", "source_e2"), 0.0)
    return replace(_draw("no_sub"), **zero, source_x_arcsec=0.0, source_y_arcsec=0.0)


def test_the_sphere_bends_by_its_einstein_radius_everywhere():
    telescope = _telescope()
    alpha_x, alpha_y = _deflection(telescope, _round_and_centred())
    radius = np.hypot(telescope.x, telescope.y)
    np.testing.assert_allclose(alpha_x, _THETA_E * telescope.x / radius, rtol=1e-5)
    np.testing.assert_allclose(alpha_y, _THETA_E * telescope.y / radius, rtol=1e-5)


def test_a_grid_is_bent_in_blocks_as_in_one(monkeypatch):
    """Its points are not a whole number of blocks here; nothing of lenstronomy's depends on where a block ends."""
    lens = replace(_draw("cdm"), lens_light=1.0)
    whole = _telescope(50, 0.13).flux(lens)
    monkeypatch.setattr(telescope_module, "_BLOCK", 777)
    np.testing.assert_allclose(_telescope(50, 0.13).flux(lens), whole, rtol=1e-12)


def test_a_point_mass_bends_by_its_closed_form():
    telescope = _telescope()
    smooth = _draw("no_sub")
    x, y = 1.6, -1.1  # outside the ring, so that the halo keeps its mass
    perturbed = replace(smooth, point_masses=np.array([[1e9, x, y]]))
    shift = np.array(_deflection(telescope, perturbed)) - _deflection(telescope, smooth)
    dx, dy = telescope.x - x, telescope.y - y
    expected = _THETA_E**2 * 1e-3 / (dx**2 + dy**2) * np.array([dx, dy])
    np.testing.assert_allclose(shift, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_deflection_against_lenstronomy(kind):
    telescope = _telescope()
    lens = _draw(kind)
    halo = {"theta_E": lens.halo_einstein_radius_arcsec, "e1": lens.lens_e1, "e2": lens.lens_e2}
    shear = {"gamma1": lens.gamma1, "gamma2": lens.gamma2}
    points = [
        {"theta_E": einstein_radius_arcsec(mass, lens.arcsec2_per_msun), "center_x": x, "center_y": y}
        for mass, x, y in lens.point_masses
    ]
    model = LensModel(["SIE", "SHEAR"] + ["POINT_MASS"] * len(points))
    expected = model.alpha(telescope.x, telescope.y, [halo, shear, *points])
    np.testing.assert_allclose(_deflection(telescope, lens), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("image_size", "pixel_scale_arcsec"), [(64, 0.1), (150, 0.05)])
def test_light_and_radius_of_a_ring_in_closed_form(image_size, pixel_scale_arcsec):
    light = _telescope(image_size, pixel_scale_arcsec).lensed_light(_round_and_centred())
    # The sphere magnifies a ring of radius beta by 2 theta_E / beta; an exponential disc falls off over R / b_n.
    exponent = 1.9992 - 0.3271  # lenstronomy's b_n for n = 1
    scale = 0.25 / exponent
    total = np.exp(exponent) * 4 * np.pi * _THETA_E * scale
    assert light.sum() * pixel_scale_arcsec**2 == pytest.approx(total, rel=5e-4)
    assert 0.6 < light.max() / np.exp(exponent) < 1  # surface brightness is kept; PSF and pixels only lower it
    axis = (np.arange(image_size) - (image_size - 1) / 2) * pixel_scale_arcsec
    radius = np.hypot(*np.meshgrid(axis, axis))
    assert (radius * light).sum() / light.sum() == pytest.approx(_THETA_E + 2 * scale**2 / _THETA_E, abs=1e-3)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_whole_image_against_lenstronomy(kind):
    """Bent, convolved and binned to pixels by its own classes, set up for this image."""
    camera, lens = instrument("model_ii", 48), replace(_draw(kind), psf_fwhm_arcsec=0.2)
    points = [
        {"theta_E": einstein_radius_arcsec(mass, lens.arcsec2_per_msun), "center_x": x, "center_y": y}
        for mass, x, y in lens.point_masses
    ]
    halo = {"theta_E": lens.halo_einstein_radius_arcsec, "e1": lens.lens_e1, "e2": lens.lens_e2}
    source = {"amp": 1.0, "R_sersic": 0.25, "n_sersic": 1.0, "e1": lens.source_e1, "e2": lens.source_e2}
    source |= {"center_x": lens.source_x_arcsec, "center_y": lens.source_y_arcsec}
    scale = camera.pixel_scale_arcsec
    _, _, ra, dec, _, _, to_angle, _ = make_grid_with_coordtransform(48, scale, inverse=False)
    model = ImageModel(
        ImageData(np.zeros((48, 48)), ra_at_xy_0=ra, dec_at_xy_0=dec, transform_pix2angle=to_angle),
        PSF("GAUSSIAN", fwhm=lens.psf_fwhm_arcsec, pixel_size=scale, truncation=5),
        LensModel(["SIE", "SHEAR"] + ["POINT_MASS"] * len(points)),
        LightModel(["SERSIC_ELLIPSE"]),
        kwargs_numerics={"supersampling_factor": 2, "supersampling_convolution": True},
    )
    expected = model.image([halo, {"gamma1": lens.gamma1, "gamma2": lens.gamma2}, *points], [source]) / scale**2
    difference = Telescope(camera).lensed_light(lens) - expected
    assert np.abs(difference[2:-2, 2:-2]).max() < 2e-4 * expected.max()  # they end the PSF elsewhere


def test_flux_is_the_same_for_every_lens_and_pixel_scale_in_surface_brightness():
    for image_size, pixel_scale_arcsec in ((32, 0.2), (64, 0.1)):
        telescope = _telescope(image_size, pixel_scale_arcsec)
        for kind in CLASSES:
            lens = _draw(kind)
            light, flux = telescope.lensed_light(lens), telescope.flux(lens)[0]
            assert flux.sum() * pixel_scale_arcsec**2 == pytest.approx(1.1, rel=1e-9)
            np.testing.assert_allclose(flux / flux.max(), light / light.max())


@pytest.mark.parametrize("kind", CLASSES)
def test_two_samples_a_pixel_suffice(kind, monkeypatch):
    lens = _draw(kind, seed=3)
    coarse = _telescope(64, 0.1).flux(lens)[0]
    monkeypatch.setattr(telescope_module, "_SUPERSAMPLING", 6)
    fine = _telescope(64, 0.1).flux(lens)[0]
    noise = np.sqrt(fine / lens.exposure_s + 0.01**2)
    assert np.abs(coarse - fine).max() < 1.5 * noise.max()  # next to a heavy point mass
    assert np.sqrt(np.mean(((coarse - fine) / noise) ** 2)) < 0.15
    assert coarse.sum() == pytest.approx(fine.sum(), rel=5e-3)


@pytest.mark.parametrize(("slope", "lowest", "highest"), [(-1.9, 0.0, 0.1), (-0.9, 5.0, 20.0)])
def test_subhalos_of_the_papers_slope_drown_in_the_noise(slope, lowest, highest):
    """In units of its noise, the change of the pixel that changes most: why DeepLense's slope is an option."""
    telescope, ranges, changes = _telescope(64, 0.1), _RANGES.model_copy(update={"subhalo_slope": (slope, slope)}), []
    for seed in range(40):
        lens = draw_lens(np.random.default_rng(seed), "cdm", ranges)
        smooth = telescope.flux(replace(lens, point_masses=np.empty((0, 3))))
        noise = np.sqrt(smooth / lens.exposure_s + 0.01**2)
        changes.append(np.abs((telescope.flux(lens) - smooth) / noise).max())
    assert lowest < np.median(changes) < highest


def test_noise_is_that_of_photons_and_sky():
    telescope, lens, rng = _telescope(), _draw("no_sub"), np.random.default_rng(1)
    flux = telescope.flux(lens)[0]
    shots = np.stack([telescope.observe(lens, rng) for _ in range(200)])
    assert shots.dtype == np.float32
    assert shots.shape == (200, 1, 32, 32)
    variance = flux / lens.exposure_s + 0.01**2
    deviation = (shots[:, 0] - flux) / np.sqrt(variance)
    assert deviation.mean() == pytest.approx(0, abs=0.01)
    assert deviation.var() == pytest.approx(1, abs=0.02)
    bright = flux > 0.3 * flux.max()
    assert deviation[:, bright].var() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("image_size", "pixel_scale_arcsec"), [(None, None), (64, 0.1)])
def test_signal_to_noise_is_about_25(image_size, pixel_scale_arcsec):
    telescope = Telescope(instrument("model_i", image_size, pixel_scale_arcsec))
    peaks = []
    for seed in range(40):
        lens = _draw(CLASSES[seed % 3], seed)
        flux = telescope.flux(lens)[0]
        peaks.append((flux / np.sqrt(flux / lens.exposure_s + 0.01**2)).max())
    assert np.median(peaks) == pytest.approx(25, abs=1.5)
    assert 15 < min(peaks) < max(peaks) < 45


def test_images_of_a_point_source_in_front_of_a_sphere():
    """At theta_E + beta and theta_E - beta, on the line through lens and source."""
    telescope = _telescope(64, 0.1)
    lens, beta = _round_and_centred(), 0.3
    alpha_x, alpha_y = _deflection(telescope, lens)
    source_x, source_y = telescope.x - alpha_x, telescope.y - alpha_y
    distance = np.hypot(source_x - beta, source_y).reshape(128, 128)
    x = telescope.x.reshape(128, 128)
    for side, expected in ((x > 0, _THETA_E + beta), (x < 0, beta - _THETA_E)):
        nearest = np.argmin(np.where(side, distance, np.inf))
        assert telescope.x[nearest] == pytest.approx(expected, abs=0.03)  # half a step of the grid
        assert telescope.y[nearest] == pytest.approx(0, abs=0.03)


def test_images_of_a_point_source_where_lenstronomy_solves_for_them():
    telescope = _telescope(64, 0.1)
    lens = replace(_draw("no_sub"), lens_e1=0.2, lens_e2=0.0, gamma1=0.0, gamma2=0.03)
    halo = {"theta_E": lens.halo_einstein_radius_arcsec, "e1": lens.lens_e1, "e2": lens.lens_e2}
    shear = {"gamma1": lens.gamma1, "gamma2": lens.gamma2}
    beta_x, beta_y = 0.03, 0.02
    solver = LensEquationSolver(LensModel(["SIE", "SHEAR"]))
    images = solver.image_position_from_source(beta_x, beta_y, [halo, shear], min_distance=0.05, search_window=6)
    assert len(images[0]) == 4
    alpha_x, alpha_y = _deflection(telescope, lens)
    distance = np.hypot(telescope.x - alpha_x - beta_x, telescope.y - alpha_y - beta_y)
    for image_x, image_y in zip(*images, strict=True):
        near = np.hypot(telescope.x - image_x, telescope.y - image_y) < 0.3
        best = np.argmin(np.where(near, distance, np.inf))
        assert distance[best] < 0.05
        assert np.hypot(telescope.x[best] - image_x, telescope.y[best] - image_y) < 0.12


@pytest.mark.parametrize("beta", [0.4, 0.8])
def test_a_sphere_magnifies_a_small_source_by_its_closed_form(beta):
    """Light at r from the axis has two images of total magnification 2 theta_E / r, and keeps its brightness."""
    telescope = _telescope(64, 0.1)
    lens = replace(_round_and_centred(), source_x_arcsec=beta, source_radius_arcsec=0.1)
    scale = 0.1 / (1.9992 - 0.3271)  # of the exponential disc
    radius = (np.arange(4000) + 0.5) / 4000 * 10 * scale
    angle = (np.arange(1000) + 0.5) / 1000 * 2 * np.pi
    inverse = np.array([np.mean(1 / np.abs(beta + r * np.exp(1j * angle))) for r in radius])
    light = np.exp(1.9992 - 0.3271 - radius / scale) * 2 * np.pi * radius * 10 * scale / 4000
    expected = 2 * _THETA_E * (light * inverse).sum()
    assert telescope.lensed_light(lens).sum() * 0.1**2 == pytest.approx(expected, rel=5e-3)


def test_bands_have_the_colours_of_source_and_lens():
    lens = replace(_draw("no_sub"), lens_light=0.5, exposure_s=1000.0)
    colours = Telescope(instrument("model_i", 64, 0.1), (0.0, 1.0, -1.0), (0.0, 0.0, 2.0))
    flux = colours.flux(lens)
    assert flux.shape == (3, 64, 64)
    assert colours.observe(lens, np.random.default_rng(0)).shape == (3, 64, 64)
    total = flux.sum(axis=(1, 2)) * 0.1**2 / 1.1
    np.testing.assert_allclose(total, [1 + 0.5, 10**-0.4 + 0.5, 10**0.4 + 0.5 * 10**-0.8], rtol=1e-9)


def test_lens_light_is_a_sersic_profile_in_the_middle():
    telescope = _telescope(64, 0.1)
    lens = replace(_round_and_centred(), lens_light=2.0, lens_light_radius_arcsec=0.5, lens_light_sersic_index=1.0)
    extra = telescope.flux(lens) - telescope.flux(replace(lens, lens_light=0.0))
    axis = (np.arange(64) - 31.5) * 0.1
    radius = np.hypot(*np.meshgrid(axis, axis))
    assert extra.sum() == pytest.approx(2 * 1.1 / 0.1**2)
    assert extra[0][radius < 0.5].sum() / extra.sum() == pytest.approx(0.5, abs=0.02)


def test_brightness_scales_all_light():
    lens = replace(_draw("cdm"), lens_light=0.3)
    np.testing.assert_allclose(_telescope().flux(replace(lens, brightness=0.5)), _telescope().flux(lens) / 2)


def test_noise_as_deeplense_is_photon_noise_twice():
    telescope, lens, rng = _telescope(), _draw("no_sub"), np.random.default_rng(1)
    expected = telescope.flux(lens)[0] * lens.exposure_s
    bright = expected > 0.3 * expected.max()  # never below zero, where counts are cut
    shots = np.stack([telescope.observe_as_deeplense(lens, rng)[0] for _ in range(400)])[:, bright]
    assert (shots == np.round(shots)).all()
    variance = 2 * expected[bright] + (0.01 * lens.exposure_s) ** 2
    deviation = (shots - expected[bright]) / np.sqrt(variance)
    assert deviation.mean() == pytest.approx(0, abs=0.02)
    assert deviation.var() == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("model", ["model_ii", "model_iii"])
def test_images_as_deeplense_of_the_other_telescopes_are_twice_the_flux(model):
    telescope, lens = Telescope(instrument(model)), _draw("cdm")
    seen = telescope.observe_as_deeplense(lens, np.random.default_rng(0))
    np.testing.assert_allclose(seen, 2 * telescope.flux(lens), rtol=1e-6)


@pytest.mark.parametrize("model", ["model_ii", "model_iii"])
def test_noise_of_the_other_telescopes_is_that_of_photons_and_sky(model):
    camera = instrument(model)
    telescope, rng = Telescope(camera), np.random.default_rng(2)
    lens = replace(_draw("no_sub"), exposure_s=camera.exposure_s[0])
    flux = telescope.flux(lens)
    shots = np.stack([telescope.observe(lens, rng) for _ in range(50)])
    deviation = (shots - flux) / np.sqrt(flux / lens.exposure_s + camera.background_rms_per_s**2)
    assert deviation.var() == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("model", ["model_i", "model_ii", "model_iii"])
def test_the_sky_alone(model):
    """A faint lens leaves the corners dark: their scatter is the sky's, in any exposure; its mean is taken off."""
    camera = instrument(model, 48, 0.15)
    telescope, rng = Telescope(camera), np.random.default_rng(2)
    for exposures in (1, 4):
        lens = replace(_draw("no_sub"), brightness=1e-9, exposure_s=exposures * camera.exposure_s[0])
        shots = np.stack([telescope.observe(lens, rng) for _ in range(20)])
        falls = 1 if model == "model_i" else np.sqrt(exposures)
        error = camera.background_rms_per_s / falls / np.sqrt(shots.size)
        assert shots.std() == pytest.approx(camera.background_rms_per_s / falls, abs=4 * error)
        assert shots.mean() == pytest.approx(0, abs=4 * error)
