from dataclasses import fields

import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import CLASSES, REDRAWN, Lens, draw_lens, with_light_of
from ssl_lens.simulation.parameters import Parameters, parse_parameters

_THETA_E = 1.66452  # arcsec, of 1e12 Msun between z = 0.5 and 1 for H0 = 70, Om0 = 0.3


def _draw(kind: str, seed: int = 0, **ranges: object) -> Lens:
    return draw_lens(np.random.default_rng(seed), kind, instrument("model_i").filled(Parameters(**ranges)))


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_the_same_mass_inside_the_ring(kind):
    for seed in range(20):
        lens = _draw(kind, seed)
        mass, x, y = lens.point_masses.T
        inside = mass[np.hypot(x, y) < _THETA_E].sum()
        assert lens.mass_msun == pytest.approx(1e12, rel=1e-9)
        halo_mass = 1e12 * (lens.halo_einstein_radius_arcsec / lens.einstein_radius_arcsec) ** 2
        assert halo_mass + inside == pytest.approx(1e12, rel=1e-9)
        assert lens.substructure_mass_fraction == pytest.approx(inside / 1e12, rel=1e-9)
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


FREE = {
    "einstein_radius_arcsec": (0.9, 1.5),
    "lens_redshift": (0.3, 0.6),
    "source_redshift": (1.0, 2.0),
    "source_radius_arcsec": (0.1, 0.3),
    "source_sersic_index": (0.5, 4.0),
    "exposure_s": (1e3, 1e4),
    "brightness": (0.1, 10.0),
    "lens_light": (0.0, 2.0),
    "lens_light_radius_arcsec": (0.4, 1.0),
    "lens_light_sersic_index": (2.0, 5.0),
    "psf_fwhm_arcsec": (0.05, 0.2),
    "subhalo_slope": (-1.9, -0.5),
    "axion_mass_ev": (1e-25, 1e-24),
}
MODULI = {
    "lens_ellipticity": ((0.0, 0.3), "lens_e1", "lens_e2"),
    "shear": ((0.02, 0.2), "gamma1", "gamma2"),
    "source_ellipticity": ((0.1, 0.5), "source_e1", "source_e2"),
}


@pytest.mark.parametrize("name", FREE)
def test_a_range_is_filled(name):
    kind = {"subhalo_slope": "cdm", "axion_mass_ev": "axion"}.get(name, "no_sub")
    values = np.array([getattr(_draw(kind, seed, **{name: FREE[name]}), name) for seed in range(200)])
    low, high = FREE[name]
    if name in ("exposure_s", "brightness", "axion_mass_ev"):  # even in the logarithm
        values, low, high = np.log10(values), np.log10(low), np.log10(high)
    share = (values - low) / (high - low)
    assert -1e-9 <= share.min() < 0.05 < 0.95 < share.max() <= 1 + 1e-9
    assert share.mean() == pytest.approx(0.5, abs=3 * 0.289 / np.sqrt(200))


@pytest.mark.parametrize("name", MODULI)
def test_a_range_of_moduli_is_filled(name):
    (low, high), *parts = MODULI[name]
    lenses = [_draw("no_sub", seed, **{name: (low, high)}) for seed in range(200)]
    modulus = np.hypot(*np.array([[getattr(lens, part) for part in parts] for lens in lenses]).T)
    assert low <= modulus.min() < modulus.max() <= high
    assert modulus.mean() == pytest.approx((low + high) / 2, abs=3 * 0.289 * (high - low) / np.sqrt(200))


def test_the_einstein_radius_decides_the_mass_and_the_redshifts_how_much():
    near = _draw("no_sub", einstein_radius_arcsec=(1.2, 1.2))
    assert near.einstein_radius_arcsec == 1.2
    assert near.mass_msun == pytest.approx(1e12 * (1.2 / _THETA_E) ** 2, rel=1e-5)
    far = _draw("no_sub", source_redshift=(2.0, 2.0))
    assert far.mass_msun == pytest.approx(1e12)
    assert far.einstein_radius_arcsec > near.einstein_radius_arcsec
    heavy = _draw("no_sub", halo_mass_msun=(4e12, 4e12))
    assert heavy.einstein_radius_arcsec == pytest.approx(2 * _THETA_E, rel=1e-5)


def test_the_ranges_of_subhalos_and_vortices():
    masses = _draw(
        "cdm", subhalo_count=(80.0, 80.0), subhalo_mass_msun=(1e7, 1e8), subhalo_radius_arcsec=(0.5, 1.0)
    ).point_masses
    assert 1e7 <= masses[:, 0].min() < masses[:, 0].max() <= 1e8
    radius = np.hypot(masses[:, 1], masses[:, 2])
    assert 0.5 <= radius.min() < radius.max() <= 1.0
    assert abs(len(masses) - 80) < 5 * np.sqrt(80)
    assert _draw("axion", vortex_mass_msun=(1e9, 1e9)).point_masses[:, 0].sum() == pytest.approx(1e9)


@pytest.mark.parametrize("kind", CLASSES)
def test_all_classes_share_what_is_not_substructure(kind):
    """Drawn from the same stream: nothing but the substructure can reveal a class."""
    ranges = {name: ends for name, ends in FREE.items() if name not in ("subhalo_slope", "axion_mass_ev")}
    lens, other = _draw(kind, 3, **ranges), _draw("no_sub", 3, **ranges)
    own = {"axion_mass_ev", "subhalo_slope", "point_masses", "source_angle_rad"}
    for field in fields(Lens):
        if field.name not in own:
            assert getattr(lens, field.name) == getattr(other, field.name), field.name


def test_substructure_that_outweighs_the_halo_is_refused():
    with pytest.raises(InputError, match="substructure of .* outweighs a halo of 1e\\+10 Msun; lower subhalo_count"):
        _draw("cdm", halo_mass_msun=(1e10, 1e10), subhalo_radius_arcsec=(0.0, 0.01), subhalo_slope=(-0.9, -0.9))


def test_deeplenses_choices():
    theirs = instrument("model_i").filled(parse_parameters(["exposure_s=1000"], as_deeplense=True))
    first, second = (draw_lens(np.random.default_rng(seed), "cdm", theirs) for seed in (0, 1))
    assert first.einstein_radius_arcsec == pytest.approx(1.28, abs=0.005)
    assert len(first.point_masses) == len(second.point_masses) == 25
    for lens in (first, second):
        assert (lens.lens_e1, lens.lens_e2, lens.gamma1, lens.gamma2) == (0.1, 0.0, 0.05, 0.0)
        assert lens.source_e1 == pytest.approx(-lens.source_e2)
        assert lens.source_e2 == pytest.approx(0.1, abs=1.1e-3)


def test_a_real_galaxy_is_turned_and_drawn_from_all():
    lenses = [
        draw_lens(np.random.default_rng(seed), "cdm", instrument("model_i").filled(Parameters()), ("a.npy", "b.npy"))
        for seed in range(100)
    ]
    assert {lens.source_image for lens in lenses} == {"a.npy", "b.npy"}
    assert np.mean([lens.source_image == "a.npy" for lens in lenses]) == pytest.approx(0.5, abs=0.15)
    angles = np.array([lens.source_angle_rad for lens in lenses])
    assert 0 <= angles.min() < 0.3
    assert 6 < angles.max() < 2 * np.pi
    assert np.isnan(lenses[0].source_sersic_index)


def test_light_of_another_lens():
    """Every field is the light's, which may be drawn again, or the mass's, which never is."""
    mass = {"lens_e1", "lens_e2", "gamma1", "gamma2", "einstein_radius_arcsec", "lens_redshift", "source_redshift"}
    mass |= {"axion_mass_ev", "subhalo_slope", "arcsec2_per_msun", "point_masses"}
    names = [name for part in REDRAWN.values() for name in part]
    assert sorted([*names, *mass]) == sorted(field.name for field in fields(Lens))
    one, other = (_draw("cdm", seed, **FREE) for seed in (1, 2))
    both = with_light_of(one, other, ("exposure", "lens_light"))
    for field in fields(Lens):
        whose = other if field.name in (*REDRAWN["exposure"], *REDRAWN["lens_light"]) else one
        assert getattr(both, field.name) is getattr(whose, field.name)
