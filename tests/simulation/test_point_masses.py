import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel

from ssl_lens.simulation.point_masses import add_deflection


def _rays_and_masses(n_masses: int):
    rng = np.random.default_rng(5)
    x, y = rng.uniform(-4, 4, size=(2, 5000))
    area, mass_x, mass_y = rng.uniform(0, 0.03, n_masses), *rng.uniform(-2, 2, size=(2, n_masses))
    return x, y, area, mass_x, mass_y


def _deflection(x, y, *masses):
    alpha_x, alpha_y = np.zeros_like(x), np.zeros_like(y)
    add_deflection(alpha_x, alpha_y, x, y, *masses)
    return alpha_x, alpha_y


@pytest.mark.parametrize("n_masses", [1, 7, 8, 25, 100])  # eight fit into a register at a time
def test_against_lenstronomy(n_masses):
    x, y, area, mass_x, mass_y = _rays_and_masses(n_masses)
    masses = [
        {"theta_E": np.sqrt(a), "center_x": at_x, "center_y": at_y}
        for a, at_x, at_y in zip(area, mass_x, mass_y, strict=True)
    ]
    expected = LensModel(["POINT_MASS"] * n_masses).alpha(x, y, masses)
    size = np.hypot(*expected).max()
    for ours, theirs in zip(_deflection(x, y, area, mass_x, mass_y), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13 * size)


def test_it_adds_to_what_is_there_and_always_the_same():
    x, y, *masses = _rays_and_masses(25)
    alone = _deflection(x, y, *masses)
    for _ in range(3):
        alpha_x, alpha_y = np.full_like(x, 2.0), np.full_like(y, -1.0)
        add_deflection(alpha_x, alpha_y, x, y, *masses)
        np.testing.assert_array_equal(alpha_x, 2.0 + alone[0])
        np.testing.assert_array_equal(alpha_y, -1.0 + alone[1])


def test_a_ray_does_not_depend_on_its_neighbours():
    """However many rays are asked for at once: the grid is bent in blocks."""
    x, y, *masses = _rays_and_masses(25)
    whole, part = _deflection(x, y, *masses), _deflection(x[1003:1010], y[1003:1010], *masses)
    np.testing.assert_array_equal(np.array(whole)[:, 1003:1010], part)


def test_a_ray_through_a_mass_is_not_bent_by_it():
    ones = np.ones(1)
    assert _deflection(ones, ones, ones, ones, ones) == (0, 0)
    near = _deflection(ones + 1e-5, ones, ones, ones, ones)
    assert near[0][0] == pytest.approx(1e5)
