from dataclasses import replace

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo
from lenstronomy.LensModel.lens_model import LensModel

from ssl_lens.data import lens_physics
from ssl_lens.data.lens_physics import CLASSES, Telescope, draw_lens, einstein_radius_arcsec, vortex

_THETA_E = 1.66452  # arcsec, of 1e12 Msun between z = 0.5 and 1 for H0 = 70, Om0 = 0.3
_NO_MASSES = np.empty((0, 3))


def _draw(kind: str, seed: int = 0):
    return draw_lens(np.random.default_rng(seed), kind, -0.9)


def _round_and_centred():
    """A singular isothermal sphere in front of a round source, for which everything has a closed form."""
    zero = dict.fromkeys(("lens_e1", "lens_e2", "gamma1", "gamma2", "source_e1", "source_e2"), 0.0)
    return replace(_draw("no_sub"), **zero, source_x_arcsec=0.0, source_y_arcsec=0.0)


def test_einstein_radius_against_the_critical_density_of_lenstronomy():
    assert einstein_radius_arcsec(1e12) == pytest.approx(_THETA_E, rel=1e-5)
    assert einstein_radius_arcsec(1e8) == pytest.approx(_THETA_E / 100, rel=1e-5)
    cosmology = LensCosmo(z_lens=0.5, z_source=1.0, cosmo=FlatLambdaCDM(H0=70, Om0=0.3))
    assert cosmology.mass_in_theta_E(einstein_radius_arcsec(1e12)) == pytest.approx(
        1e12, rel=1e-3
    )  # its constants are older


def test_the_sphere_bends_by_its_einstein_radius_everywhere():
    telescope = Telescope(32, 0.2)
    alpha_x, alpha_y = telescope.deflection(_round_and_centred())
    radius = np.hypot(telescope.x, telescope.y)
    np.testing.assert_allclose(alpha_x, _THETA_E * telescope.x / radius, rtol=1e-5)
    np.testing.assert_allclose(alpha_y, _THETA_E * telescope.y / radius, rtol=1e-5)


def test_a_point_mass_bends_by_its_closed_form():
    telescope = Telescope(32, 0.2)
    smooth = _draw("no_sub")
    x, y = 1.6, -1.1  # outside the ring, so that the halo keeps its mass
    perturbed = replace(smooth, point_masses=np.array([[1e9, x, y]]))
    shift = np.array(telescope.deflection(perturbed)) - telescope.deflection(smooth)
    dx, dy = telescope.x - x, telescope.y - y
    expected = _THETA_E**2 * 1e-3 / (dx**2 + dy**2) * np.array([dx, dy])
    np.testing.assert_allclose(shift, expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("kind", CLASSES)
def test_deflection_against_lenstronomy(kind):
    telescope = Telescope(32, 0.2)
    lens = _draw(kind)
    halo = {"theta_E": einstein_radius_arcsec(lens.halo_mass_msun), "e1": lens.lens_e1, "e2": lens.lens_e2}
    shear = {"gamma1": lens.gamma1, "gamma2": lens.gamma2}
    points = [
        {"theta_E": einstein_radius_arcsec(mass), "center_x": x, "center_y": y} for mass, x, y in lens.point_masses
    ]
    model = LensModel(["SIE", "SHEAR"] + ["POINT_MASS"] * len(points))
    expected = model.alpha(telescope.x, telescope.y, [halo, shear, *points])
    np.testing.assert_allclose(telescope.deflection(lens), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("image_size", "pixel_scale_arcsec"), [(64, 0.1), (150, 0.05)])
def test_light_and_radius_of_a_ring_in_closed_form(image_size, pixel_scale_arcsec):
    light = Telescope(image_size, pixel_scale_arcsec).lensed_light(_round_and_centred())
    # The sphere magnifies a ring of radius beta by 2 theta_E / beta; an exponential disc falls off over R / b_n.
    exponent = 1.9992 - 0.3271  # lenstronomy's b_n for n = 1
    scale = 0.25 / exponent
    total = np.exp(exponent) * 4 * np.pi * _THETA_E * scale
    assert light.sum() * pixel_scale_arcsec**2 == pytest.approx(total, rel=5e-4)
    assert 0.6 < light.max() / np.exp(exponent) < 1  # surface brightness is kept; PSF and pixels only lower it
    axis = (np.arange(image_size) - (image_size - 1) / 2) * pixel_scale_arcsec
    radius = np.hypot(*np.meshgrid(axis, axis))
    assert (radius * light).sum() / light.sum() == pytest.approx(_THETA_E + 2 * scale**2 / _THETA_E, abs=1e-3)


def test_flux_is_the_same_for_every_lens_and_pixel_scale_in_surface_brightness():
    for image_size, pixel_scale_arcsec in ((32, 0.2), (64, 0.1)):
        telescope = Telescope(image_size, pixel_scale_arcsec)
        for kind in CLASSES:
            lens = _draw(kind)
            light, flux = telescope.lensed_light(lens), telescope.flux(lens)
            assert flux.sum() * pixel_scale_arcsec**2 == pytest.approx(1.1, rel=1e-9)
            np.testing.assert_allclose(flux / flux.max(), light / light.max())


@pytest.mark.parametrize("kind", CLASSES)
def test_two_samples_a_pixel_suffice(kind, monkeypatch):
    lens = _draw(kind, seed=3)
    coarse = Telescope(64, 0.1).flux(lens)
    monkeypatch.setattr(lens_physics, "_SUPERSAMPLING", 6)
    fine = Telescope(64, 0.1).flux(lens)
    noise = np.sqrt(fine / lens.exposure_s + lens_physics._BACKGROUND_RMS_PER_S**2)
    assert np.abs(coarse - fine).max() < 1.5 * noise.max()  # next to a heavy point mass
    assert np.sqrt(np.mean(((coarse - fine) / noise) ** 2)) < 0.15
    assert coarse.sum() == pytest.approx(fine.sum(), rel=5e-3)


def test_noise_is_that_of_photons_and_sky():
    telescope, lens, rng = Telescope(32, 0.2), _draw("no_sub"), np.random.default_rng(1)
    flux = telescope.flux(lens)
    shots = np.stack([telescope.observe(lens, rng) for _ in range(200)])
    assert shots.dtype == np.float32
    assert shots.shape == (200, 1, 32, 32)
    variance = flux / lens.exposure_s + 0.01**2
    deviation = (shots[:, 0] - flux) / np.sqrt(variance)
    assert deviation.mean() == pytest.approx(0, abs=0.01)
    assert deviation.var() == pytest.approx(1, abs=0.02)
    bright = flux > 0.3 * flux.max()
    assert deviation[:, bright].var() == pytest.approx(1, abs=0.03)


def test_signal_to_noise_is_about_25():
    telescope = Telescope(64, 0.1)
    peaks = []
    for seed in range(40):
        lens = _draw(CLASSES[seed % 3], seed)
        flux = telescope.flux(lens)
        peaks.append((flux / np.sqrt(flux / lens.exposure_s + 0.01**2)).max())
    assert np.median(peaks) == pytest.approx(25, abs=1.5)
    assert 15 < min(peaks) < max(peaks) < 45


@pytest.mark.parametrize("slope", [-0.9, -1.9])
def test_subhalos_follow_the_mass_function(slope):
    lenses = [draw_lens(np.random.default_rng(seed), "cdm", slope) for seed in range(200)]
    counts = np.array([len(lens.point_masses) for lens in lenses])
    assert counts.mean() == pytest.approx(25, abs=1.1)  # 3 sigma
    assert counts.var() == pytest.approx(25, rel=0.3)
    mass, x, y = np.concatenate([lens.point_masses for lens in lenses]).T
    assert 1e6 <= mass.min() < mass.max() <= 1e10
    power = slope + 1
    for limit in (3e6, 1e8, 3e9):
        expected = (limit**power - 1e6**power) / (1e10**power - 1e6**power)
        assert np.mean(mass < limit) == pytest.approx(expected, abs=0.02)
    radius = np.hypot(x, y)
    assert 0.25 <= radius.min() < radius.max() <= 2.0
    assert radius.mean() == pytest.approx(1.125, abs=0.025)
    assert np.mean(np.cos(np.arctan2(y, x)) > 0) == pytest.approx(0.5, abs=0.025)


def test_a_vortex_is_a_line_through_the_centre():
    mass, x, y = vortex(1e-23, angle_rad=0.3).T
    assert len(mass) == 100
    assert mass.sum() == pytest.approx(3e10)
    np.testing.assert_allclose(y, x * np.tan(0.3), atol=1e-12)
    np.testing.assert_allclose([x[0], x[-1]], [-0.3 * np.cos(0.3), 0.3 * np.cos(0.3)])  # 0.06 * 10 / 2 arcsec
    np.testing.assert_allclose(np.diff(x), np.diff(x)[0])
    masses = [_draw("axion", seed).axion_mass_ev for seed in range(200)]
    assert 1e-24 <= min(masses) < 2e-24 < 5e-23 < max(masses) <= 1e-22
    assert np.median(np.log10(masses)) == pytest.approx(-23, abs=0.15)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_the_same_mass_inside_the_ring(kind):
    for seed in range(20):
        lens = _draw(kind, seed)
        mass, x, y = lens.point_masses.T
        inside = mass[np.hypot(x, y) < _THETA_E].sum()
        assert lens.halo_mass_msun + inside == pytest.approx(1e12, rel=1e-9)
        assert (inside > 0) == (kind != "no_sub")


def test_orientations_and_source_are_spread_evenly():
    lenses = [_draw("no_sub", seed) for seed in range(300)]
    for names, modulus in (
        (("lens_e1", "lens_e2"), 0.1),
        (("gamma1", "gamma2"), 0.05),
        (("source_e1", "source_e2"), 0.14),
    ):
        parts = np.array([[getattr(lens, name) for name in names] for lens in lenses])
        np.testing.assert_allclose(np.hypot(*parts.T), modulus)
        np.testing.assert_allclose(parts.mean(axis=0) / modulus, 0, atol=0.13)
    offsets = np.array([[lens.source_x_arcsec, lens.source_y_arcsec] for lens in lenses])
    assert np.abs(offsets).max() <= 0.35
    np.testing.assert_allclose(offsets.std(axis=0), 0.35 / np.sqrt(3), rtol=0.1)
