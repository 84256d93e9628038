"""Dark matter in the halo: CDM subhalos or an axion vortex, as point masses [P, 3] of mass_msun, x_arcsec, y_arcsec."""

from __future__ import annotations

import numpy as np

VORTEX_POINTS = 100
NO_SUBSTRUCTURE = np.empty((0, 3))


def draw_subhalos(
    rng: np.random.Generator,
    count: int,
    slope: float,
    mass_msun: tuple[float, float],
    radius_arcsec: tuple[float, float],
) -> np.ndarray:
    """Draws masses from dN/dm ~ m^slope, and radii and angles evenly."""
    mass = subhalo_mass_msun(rng.uniform(size=count), slope, mass_msun)
    radius, angle = rng.uniform(*radius_arcsec, size=count), rng.uniform(0, 2 * np.pi, size=count)
    return np.stack([mass, radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def subhalo_mass_msun(share: np.ndarray, slope: float, ends_msun: tuple[float, float]) -> np.ndarray:
    """The mass below which a `share` of all subhalos lies: the inverse of their cumulative mass function."""
    power = slope + 1
    if abs(power) < 1e-6:  # dN/dm ~ 1/m
        return ends_msun[0] * (ends_msun[1] / ends_msun[0]) ** share
    low, high = np.power(ends_msun, power)
    return (low + (high - low) * share) ** (1 / power)


def mean_subhalo_mass_msun(slope: float, ends_msun: tuple[float, float]) -> float:
    """Mean of the mass function."""
    return float(subhalo_mass_msun((np.arange(100_000) + 0.5) / 100_000, slope, ends_msun).mean())


def vortex(axion_mass_ev: float, angle_rad: float, mass_msun: float = 3e10) -> np.ndarray:
    """An axion vortex: 100 equal masses on a line through the centre, as long as the axion's de Broglie wave."""
    half_length_arcsec = 0.06 * 1e-22 / (2 * axion_mass_ev)
    along = np.linspace(-half_length_arcsec, half_length_arcsec, VORTEX_POINTS)
    mass = np.full(VORTEX_POINTS, mass_msun / VORTEX_POINTS)
    return np.stack([mass, along * np.cos(angle_rad), along * np.sin(angle_rad)], axis=1)
