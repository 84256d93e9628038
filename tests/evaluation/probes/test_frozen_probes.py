"""Nearest neighbours, the detectors of anomalies, and the constant."""

import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Classes, Normal, Numbers
from ssl_lens.evaluation.probes import PROBES, probes_named
from ssl_lens.evaluation.probes.constant import Constant
from ssl_lens.evaluation.probes.knn import KNN
from ssl_lens.representation.neighbours import knn_probabilities, knn_scores


def test_votes_are_those_of_the_reference():
    """`knn_scores` is held to the golden files by its own tests."""
    rng = np.random.default_rng(0)
    train, labels, test = rng.normal(size=(40, 5)), rng.integers(0, 3, 40), rng.normal(size=(7, 5))
    said = KNN(5).fit(train, Classes(labels, ("a", "b", "c")), seed=0).predict(test)
    np.testing.assert_array_equal(said, knn_probabilities(knn_scores(train, labels, test, num_classes=3, k=5)))


def test_numbers_are_the_mean_of_the_neighbours_weighted_by_their_cosine():
    angles = np.radians([0.0, 30.0, 60.0])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    values = np.array([[1.0], [2.0], [10.0]])
    said = KNN(2).fit(train, Numbers(values, ("t",), (False,)), seed=0).predict(np.array([[2.0, 0.0]]))
    weights = np.exp(np.cos(angles[:2]) / 0.07)
    assert said[0, 0] == pytest.approx((weights @ values[:2, 0]) / weights.sum())


def test_a_distance_is_the_mean_over_the_nearest_in_units_of_the_scatter():
    train = np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, -100.0], [0.0, 100.0]])  # scatter sqrt(1/2) and sqrt(5000)
    said = KNN(2).fit(train, Normal(), seed=0).predict(np.array([[3.0, 0.0]]))
    assert said.tolist() == [[pytest.approx(np.sqrt(2) * (2 + np.sqrt(10)) / 2)]]


def test_whitened_components_are_uncorrelated_and_of_unit_variance_over_all_training_images():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    to_components = KNN(whiten=4).map(train)
    np.testing.assert_allclose(np.cov(to_components(train), rowvar=False), np.eye(4), atol=1e-5)
    scale = train.std(axis=0)
    values, vectors = np.linalg.eigh(np.corrcoef(train, rowvar=False))
    expected = (
        ((train[:5] + 1 - train.mean(axis=0)) / scale) @ vectors[:, ::-1][:, :4] / np.sqrt(values[::-1][:4] * 500 / 499)
    )
    np.testing.assert_allclose(np.abs(to_components(train[:5] + 1)), np.abs(expected), atol=1e-4)
    assert KNN().map(train)(train) is train


def test_whitening_gives_no_more_components_than_images():
    assert KNN(whiten=64).map(np.eye(5))(np.ones((2, 5))).shape == (2, 5)


@pytest.mark.parametrize("name", ["knn", "mahalanobis", "isolation_forest"])
def test_detectors_find_what_lies_apart(name):
    """Usual images in a flat cloud around (10, ..., 10); an anomaly off it in a direction where the cloud is thin."""
    rng = np.random.default_rng(0)
    widths = np.array([3.0, 3, 0.1, 0.1, 0.1])
    usual, unusual = (10 + rng.normal(size=(count, 5)) * widths for count in (250, 20))
    unusual[:, 2:] += 3.0
    fitted = PROBES[name]().fit(usual[:200], Normal(), seed=0)
    apart, inside = fitted.predict(unusual), fitted.predict(usual[200:])
    assert apart.shape == (20, 1)
    assert np.median(apart) > inside.max()


def test_a_mahalanobis_distance_counts_in_widths():
    rng = np.random.default_rng(0)
    usual = rng.normal(size=(5000, 2)) * np.array([1.0, 100.0])
    fitted = PROBES["mahalanobis"]().fit(usual, Normal(), seed=0)
    assert fitted.predict(np.array([[3.0, 0.0], [0.0, 300.0]])).ravel() == pytest.approx([3, 3], rel=0.06)


def test_the_constant_is_the_mean_or_the_frequencies():
    nothing = np.empty((4, 0))
    numbers = Constant().fit(nothing, Numbers(np.array([[1.0], [2], [3], [6]]), ("t",), (False,)), seed=0)
    assert numbers.predict(nothing[:2]).tolist() == [[3], [3]]
    classes = Constant().fit(nothing, Classes(np.array([0, 0, 0, 1]), ("a", "b")), seed=0)
    assert classes.predict(nothing[:1]).tolist() == [[0.75, 0.25]]


def test_probes_have_the_names_that_they_are_asked_for_by():
    assert [probe.name for probe in probes_named(list(PROBES))] == list(PROBES)
    with pytest.raises(InputError, match="probe svm is unknown; there are knn, linear"):
        probes_named(["svm"])
