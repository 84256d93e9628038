"""Deflection by many point masses at many places: the one sum that takes most of the time where numpy adds it up."""

from __future__ import annotations

import numba
import numpy as np

_LEAST_ARCSEC2 = 1e-12  # nearer than a microarcsecond a ray passes as at a microarcsecond


# Compiled again in each process, in 0.3 s: a cache would be one more file that a full disk leaves half-written.
# fastmath: the sum over masses may be taken in any order, which lets a processor take eight at a time.
@numba.njit(fastmath={"reassoc"}, error_model="numpy")
def add_deflection(
    alpha_x: np.ndarray,
    alpha_y: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    area: np.ndarray,
    mass_x: np.ndarray,
    mass_y: np.ndarray,
) -> None:
    """Adds to alpha [N] in arcsec, for rays at x, y [N]: sum_k area_k (x - x_k) / |x - x_k|^2.

    Args:
        area: squares of the Einstein radii of the P masses, arcsec^2.
        mass_x, mass_y: where they are, [P].
    """
    for i in range(x.size):
        sum_x = sum_y = 0.0
        for k in range(area.size):
            dx, dy = x[i] - mass_x[k], y[i] - mass_y[k]
            pull = area[k] / max(dx * dx + dy * dy, _LEAST_ARCSEC2)
            sum_x += pull * dx
            sum_y += pull * dy
        alpha_x[i] += sum_x
        alpha_y[i] += sum_y
