"""Distances as lensing needs them: how large the ring of a mass is on the sky."""

from __future__ import annotations

import functools

import numpy as np
from astropy import constants, units
from astropy.cosmology import FlatLambdaCDM


def einstein_arcsec2_per_msun(lens_redshift: float, source_redshift: float, *, as_deeplense: bool = False) -> float:
    """Square of the Einstein radius that one solar mass has: 4 G M / c^2 * D_ls / (D_l D_s), flat, H0 70, Omega_m 0.3.

    Args:
        as_deeplense: luminosity distances, and D_s - D_l between lens and source, as DeepLense's code has it: 1.28
            arcsec for 1e12 Msun between redshifts 0.5 and 1. Angular-diameter distances bend light: 1.66 arcsec.
    """
    comoving_lens, comoving_source = _comoving_mpc(lens_redshift), _comoving_mpc(source_redshift)
    if as_deeplense:
        to_lens, to_source = comoving_lens * (1 + lens_redshift), comoving_source * (1 + source_redshift)
        between = to_source - to_lens
    else:
        to_lens, to_source = comoving_lens / (1 + lens_redshift), comoving_source / (1 + source_redshift)
        between = (comoving_source - comoving_lens) / (1 + source_redshift)  # as space is flat
    return _arcsec2_mpc_per_msun() * between / (to_lens * to_source)


@functools.lru_cache(maxsize=256)
def _comoving_mpc(redshift: float) -> float:
    return float(_cosmology().comoving_distance(redshift).to_value(units.Mpc))


@functools.cache
def _cosmology() -> FlatLambdaCDM:
    return FlatLambdaCDM(H0=70, Om0=0.3)


@functools.cache
def _arcsec2_mpc_per_msun() -> float:
    length = 4 * constants.G * constants.M_sun / constants.c**2
    return float(length.to_value(units.Mpc)) * units.rad.to(units.arcsec) ** 2


def einstein_radius_arcsec(mass_msun: float | np.ndarray, arcsec2_per_msun: float) -> float | np.ndarray:
    """Angle in arcsec that encloses `mass_msun` in projection."""
    return np.sqrt(mass_msun * arcsec2_per_msun)
