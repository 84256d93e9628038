"""Whitening: neighbours that weigh all directions of features alike, not the few that vary most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def fit_whitening(pool: np.ndarray, directions: int) -> Callable[[np.ndarray], np.ndarray]:
    """A map to the leading principal components of standardised features, each of unit variance over `pool` [P, F].

    Those that follow are dropped, for their small variances would only enlarge noise. There are at most P and F.

    Returns: what makes float32 [N, directions] of features [N, F].
    """
    components = PCA(min(directions, *pool.shape), whiten=True, random_state=0)
    reduce = make_pipeline(StandardScaler(), components).fit(pool)
    return lambda features: reduce.transform(features).astype(np.float32)
