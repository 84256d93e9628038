import numpy as np
import pytest

from ssl_lens.simulation.instrument import instrument
from ssl_lens.simulation.lens import draw_lens
from ssl_lens.simulation.parameters import Parameters, parse_parameters
from ssl_lens.simulation.substructure import mean_subhalo_mass_msun, vortex


def _draw(kind: str, seed: int, slope: float = -0.9):
    ranges = instrument("model_i").filled(Parameters(subhalo_slope=(slope, slope)))
    return draw_lens(np.random.default_rng(seed), kind, ranges)


@pytest.mark.parametrize("slope", [-0.9, -1.0, -1.9])
def test_subhalos_follow_the_mass_function(slope):
    lenses = [_draw("cdm", seed, slope) for seed in range(200)]
    counts = np.array([len(lens.point_masses) for lens in lenses])
    assert counts.mean() == pytest.approx(25, abs=1.1)  # 3 sigma
    assert counts.var() == pytest.approx(25, rel=0.3)
    mass, x, y = np.concatenate([lens.point_masses for lens in lenses]).T
    assert 1e6 <= mass.min() < mass.max() <= 1e10
    power = slope + 1
    for limit in (3e6, 1e8, 3e9):
        if power == 0:
            expected = np.log(limit / 1e6) / np.log(1e10 / 1e6)
        else:
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


def test_the_mean_mass_in_closed_form():
    ends = (1e6, 1e10)
    ratio = (1e10**1.1 - 1e6**1.1) / 1.1 / ((1e10**0.1 - 1e6**0.1) / 0.1)
    assert mean_subhalo_mass_msun(-0.9, ends) == pytest.approx(ratio, rel=1e-4)
    assert mean_subhalo_mass_msun(-1.0, ends) == pytest.approx((1e10 - 1e6) / np.log(1e4), rel=1e-4)


def test_the_slope_of_the_paper_leaves_almost_no_substructure():
    """A share of 0.03 % of the halo, where that of DeepLense's code is 4 %: why the latter is the default."""
    share = {slope: 25 * mean_subhalo_mass_msun(slope, (1e6, 1e10)) / 1e12 for slope in (-1.9, -0.9)}
    assert share[-1.9] == pytest.approx(3.4e-4, rel=0.02)
    assert share[-0.9] == pytest.approx(0.038, rel=0.02)
    assert Parameters().subhalo_slope == (-1.9, -1.9)
    assert parse_parameters(as_deeplense=True).subhalo_slope == (-0.9, -0.9)
