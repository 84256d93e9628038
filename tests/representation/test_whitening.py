"""Whitened features: directions of shrunk variance, whichever way they are found."""

import numpy as np
import pytest

from ssl_lens.representation.whitening import SHRINKAGE, fit_whitening


def pool_of(count: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 3


def test_cosines_are_those_of_the_shrunk_covariance() -> None:
    """x' C^-1 y of standardised x and y, C shrunk towards the identity."""
    pool = pool_of(500, 6)
    standard = (pool - pool.mean(0)) / pool.std(0)
    shrunk = (1 - SHRINKAGE) * np.corrcoef(pool, rowvar=False) + SHRINKAGE * np.eye(6)
    whitened = fit_whitening(pool)(pool[:40])
    np.testing.assert_allclose(
        whitened @ whitened.T, standard[:40] @ np.linalg.inv(shrunk) @ standard[:40].T, atol=1e-4
    )


def test_directions_are_uncorrelated_and_what_hardly_varies_stays_short() -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(2000, 1))
    pool = np.column_stack([wide, wide + 1e-3 * rng.normal(size=(2000, 1)), rng.normal(size=(2000, 2))])
    covariance = np.cov(fit_whitening(pool)(pool), rowvar=False)
    variances = np.diag(covariance)
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-5)
    assert variances.min() < 1e-4  # 1 without shrinkage
    assert variances.max() == pytest.approx(2 / (0.9 * 2 + 0.1), abs=0.01)


def test_fewer_images_than_features_have_the_directions_that_they_span() -> None:
    pool = pool_of(5, 40)
    whitened = fit_whitening(pool)(pool)
    assert whitened.shape == (5, 4)
    standard = (pool - pool.mean(0)) / pool.std(0)
    values = np.linalg.svd(standard, compute_uv=False)[:4] ** 2 / 5
    expected = np.sort(values / (0.9 * values + 0.1 * values.mean()))
    np.testing.assert_allclose(np.sort(whitened.astype(np.float64).var(axis=0)), expected, rtol=1e-4)


def test_collapsed_features_stay_finite() -> None:
    for width in (3, 50):
        assert (fit_whitening(np.ones((10, width)))(np.ones((2, width))) == 0).all()
