"""Whitened features: unit variance, nothing shared, and no direction that noise alone fills."""

import numpy as np

from ssl_lens.representation.whitening import fit_whitening


def test_directions_are_uncorrelated_and_of_unit_variance_over_the_pool():
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    whiten = fit_whitening(pool, 4)
    np.testing.assert_allclose(np.cov(whiten(pool), rowvar=False), np.eye(4), atol=1e-5)
    scale = pool.std(axis=0)
    values, vectors = np.linalg.eigh(np.corrcoef(pool, rowvar=False))
    expected = (
        ((pool[:5] + 1 - pool.mean(axis=0)) / scale) @ vectors[:, ::-1][:, :4] / np.sqrt(values[::-1][:4] * 500 / 499)
    )
    np.testing.assert_allclose(np.abs(whiten(pool[:5] + 1)), np.abs(expected), atol=1e-4)


def test_there_are_no_more_directions_than_images():
    assert fit_whitening(np.eye(5), 64)(np.ones((2, 5))).shape == (2, 5)
