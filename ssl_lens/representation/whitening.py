"""Whitening: neighbours that weigh all directions of features alike, not the few that vary most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ssl_lens.data.pixels.preprocess import evenly_spaced

SHRINKAGE = 0.1  # of variances towards their mean; better than the 64 leading components at 32 to 3,000 images
MOST_TO_FIT = 2048  # images, so that no larger matrix is taken apart
_SMALLEST = 1e-9  # of the largest variance: below, a direction is rounding


def fit_whitening(pool: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A map to principal components of standardised features, each divided by its shrunk standard deviation.

    All directions in which the pool varies are kept. Without shrinkage the many along which it hardly does would be as
    long as the others, and be noise.

    Args:
        pool: features [P, F] whose components they are, at most 2,048 evenly spaced ones.

    Returns: what makes float32 [N, directions] of features [N, F].
    """
    rows = pool[evenly_spaced(len(pool), MOST_TO_FIT)].astype(np.float64)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    std = np.where(std > 0, std, 1.0)
    variances, directions = _principal((rows - mean) / std)
    shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * variances.mean()
    scaled = directions / np.sqrt(np.maximum(shrunk, np.finfo(np.float64).tiny))
    return lambda features: (((features - mean) / std) @ scaled).astype(np.float32)


def _principal(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances [K] and directions [F, K] of centred rows [P, F], by the smaller of both products."""
    count, width = rows.shape
    variances, vectors = np.linalg.eigh((rows.T @ rows if width <= count else rows @ rows.T) / count)
    kept = variances >= _SMALLEST * variances[-1]
    variances, vectors = np.maximum(variances[kept], 0.0), vectors[:, kept]
    if width <= count:
        return variances, vectors
    return variances, rows.T @ vectors / np.sqrt(np.maximum(count * variances, np.finfo(np.float64).tiny))
