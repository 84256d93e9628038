import logging

import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.evaluation import linear_probe
from ssl_lens.evaluation.linear_probe import fit_linear_probe, linear_probabilities


def _blobs(count: int, num_classes: int, features: int, distance: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit Gaussians around class centres on the coordinate axes, in features of very different scale."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    scale = 10.0 ** np.linspace(-3, 3, features)
    return (rng.normal(size=(count, features)) + distance * np.eye(num_classes, features)[labels]) * scale, labels


@pytest.mark.parametrize("num_classes", [2, 4])
def test_separated_classes_are_found_whatever_the_features_scale(num_classes):
    train, labels = _blobs(40 * num_classes, num_classes, 8, 6.0, 0)
    test, test_labels = _blobs(100, num_classes, 8, 6.0, 1)
    probabilities = linear_probabilities(train, labels, test, seed=0)
    assert probabilities.shape == (100, num_classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    assert (probabilities.argmax(1) == test_labels).mean() >= 0.98


def test_reaches_the_bayes_accuracy_of_two_gaussians():
    # centres sqrt(2) * 1.5 apart: the best plane is right with probability Phi(distance / 2) = 0.856
    train, labels = _blobs(4000, 2, 5, 1.5, 0)
    test, test_labels = _blobs(20000, 2, 5, 1.5, 1)
    accuracy = (linear_probabilities(train, labels, test, seed=0).argmax(1) == test_labels).mean()
    assert accuracy == pytest.approx(0.856, abs=0.008)


def test_pure_noise_is_regularised_strongly_and_stays_at_chance():
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(60, 200)), rng.normal(size=(4000, 200)), np.arange(60) % 2
    probe = fit_linear_probe(train, labels, seed=0)
    assert probe["classify"].C <= 1e-3
    assert abs(probe.predict_proba(test)[:, 1] - 0.5).max() < 0.4
    assert (probe.predict(test) == np.arange(4000) % 2).mean() == pytest.approx(0.5, abs=0.03)


def test_folds_shrink_to_the_smallest_class():
    train, labels = _blobs(40, 2, 4, 4.0, 0)
    keep = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:2]])
    assert fit_linear_probe(train[keep], labels[keep], seed=0)["classify"].classes_.tolist() == [0, 1]


def test_one_label_per_class_is_one_line():
    with pytest.raises(InputError, match="2 labels per class, got 1"):
        fit_linear_probe(np.eye(2), np.array([0, 1]), seed=0)


def test_a_probe_that_did_not_converge_says_so(monkeypatch, caplog):
    monkeypatch.setattr(linear_probe, "MAX_ITERATIONS", 1)
    with caplog.at_level(logging.WARNING):
        fit_linear_probe(*_blobs(60, 2, 4, 1.0, 0), seed=0)
    assert "had not converged after 1 iterations" in caplog.text
