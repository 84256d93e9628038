"""The linear map in which renderings of one lens agree."""

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from torch import nn

from ssl_lens.errors import InputError
from ssl_lens.representation.alignment import SHRINKAGE, fit_alignment

SHARED, FEATURES = 3, 12


def renderings(lenses: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features [M, 12] of what renderings share, three numbers, under nuisances of twice their scatter."""
    rng = np.random.default_rng(5)
    shared, nuisance = rng.normal(size=(SHARED, FEATURES)), 2 * rng.normal(size=(4, FEATURES))
    rng = np.random.default_rng(seed)
    lens = np.repeat(np.arange(lenses), each)
    features = rng.normal(size=(lenses, SHARED))[lens] @ shared + rng.normal(size=(len(lens), 4)) @ nuisance
    return 3 * (features + 0.5 * rng.normal(size=features.shape)) + 7, 100 + lens


def aligned(features: np.ndarray, fitted) -> np.ndarray:
    return fitted.alignment(torch.from_numpy(features)).double().numpy()


@pytest.mark.parametrize("each", [2, 3])
def test_signals_are_those_of_the_generalised_eigenproblem(each):
    features, lens = renderings(400, each)
    fitted = fit_alignment(features, lens)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    means = standard.reshape(400, each, FEATURES).mean(axis=1)
    rest = standard - np.repeat(means, each, axis=0)
    within = rest.T @ rest / (400 * (each - 1))
    within += SHRINKAGE * np.trace(within) / FEATURES * np.eye(FEATURES)
    between = (means - means.mean(axis=0)).T @ (means - means.mean(axis=0)) / 399 - within / each
    np.testing.assert_allclose(fitted.signal, eigh(between, within, eigvals_only=True)[::-1], rtol=1e-8)


def test_what_is_shared_is_kept_and_nothing_else():
    fitted = fit_alignment(*renderings(400, 2), keep="shared")
    assert fitted.shared == SHARED
    assert fitted.alignment.directions.shape == (FEATURES, SHARED)
    assert (fitted.correlation[:SHARED] > 0.7).all()
    assert (abs(fitted.correlation[SHARED:]) < 0.2).all()
    features, _ = renderings(1000, 2, seed=1)
    first, second = aligned(features, fitted).reshape(1000, 2, SHARED).transpose(1, 0, 2)
    within = np.cov((first - second) / 2**0.5, rowvar=False)
    np.testing.assert_allclose(within, np.eye(SHARED), atol=0.15)
    between = np.cov(first, rowvar=False) - within
    np.testing.assert_allclose(np.diag(between), fitted.signal[:SHARED], rtol=0.15)


def test_the_order_and_names_of_lenses_do_not_matter():
    features, lens = renderings(100, 2)
    order = np.random.default_rng(0).permutation(len(features))
    signal = fit_alignment(features, lens).signal
    np.testing.assert_allclose(fit_alignment(features[order], lens[order] * 7.5 - 3).signal, signal, rtol=1e-9)


def test_features_that_say_nothing_do_no_harm():
    features, lens = renderings(100, 2)
    fitted = fit_alignment(np.concatenate([features, np.full((200, 1), 3.0)], axis=1), lens)
    assert fitted.shared == SHARED
    assert fitted.alignment.directions.isfinite().all()
    np.testing.assert_allclose(fitted.signal[:SHARED], fit_alignment(features, lens).signal[:SHARED], rtol=2e-2)


def test_other_images_are_standardised_by_their_own_numbers():
    features, lens = renderings(200, 2)
    fitted = fit_alignment(features, lens)
    brighter = 5 * features - 100
    moved = fitted.alignment.refitted(brighter)
    there = moved(torch.from_numpy(brighter)).numpy()
    np.testing.assert_allclose(there, aligned(features, fitted), atol=1e-4 * np.abs(there).max())


def test_a_head_behind_the_map_is_one_in_front_of_it():
    features, lens = renderings(200, 2)
    alignment = fit_alignment(features, lens).alignment
    head = nn.Linear(FEATURES, 2).double()
    given = torch.from_numpy(features)
    expected = head(((given - alignment.mean) / alignment.scale) @ alignment.directions.double())
    torch.testing.assert_close(alignment.folded_into(head)(given), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("lenses", "each", "message"),
    [
        (19, 2, "19 lenses of 2 or more renderings given; needed are 20 lenses or more"),
        (50, 1, "50 lenses of 1 or more renderings given"),
    ],
)
def test_too_few_renderings_are_refused(lenses, each, message):
    with pytest.raises(InputError, match=message):
        fit_alignment(*renderings(lenses, each))


def test_renderings_that_share_nothing_are_refused():
    rng = np.random.default_rng(1)
    with pytest.raises(InputError, match="no direction of the features is shared"):
        fit_alignment(rng.normal(size=(400, 3)), np.repeat(np.arange(200), 2))


def test_features_of_another_length_are_refused():
    alignment = fit_alignment(*renderings(100, 2)).alignment
    with pytest.raises(InputError, match="give 5 features, but the linear map was fitted to 12"):
        alignment(torch.zeros(1, 5))
