import logging

import numpy as np
import pytest

from ssl_lens.evaluation.answers import Classes
from ssl_lens.evaluation.probes import linear
from ssl_lens.evaluation.probes.linear import Linear, LinearClassifier, fit_linear
from ssl_lens.evaluation.probes.ridge import Ridge

NAMES = ("a", "b", "c", "d")


def _blobs(
    counts: tuple[int, ...], features: int, distance: float, seed: int, spread: float = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Unit Gaussians around class centres on the coordinate axes, in features of very different scale."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    scale = 10.0 ** np.linspace(-spread, spread, features)
    centres = distance * np.eye(len(counts), features)[labels]
    return (rng.normal(size=(len(labels), features)) + centres) * scale, labels


@pytest.mark.parametrize("num_classes", [2, 4])
def test_separated_classes_are_found_whatever_the_features_scale(num_classes):
    train, labels = _blobs((40,) * num_classes, 8, 6.0, 0)
    test, test_labels = _blobs((25,) * num_classes, 8, 6.0, 1)
    probabilities = fit_linear(train, labels, seed=0).predict(test)
    assert probabilities.shape == (25 * num_classes, num_classes)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)
    assert (probabilities.argmax(1) == test_labels).mean() >= 0.98


@pytest.mark.parametrize("counts", [(40, 40), (160, 40), (40, 160), (190, 10), (10, 190), (100, 20, 5), (60, 60, 60)])
@pytest.mark.parametrize("probe", [Linear(), Ridge()], ids=["linear", "ridge"])
@pytest.mark.parametrize("features", [4, 100])
def test_easy_classes_are_all_found_however_unequal_they_are(counts, probe, features):
    """All regularisations rank perfectly here; the strongest one's intercept would answer the largest class."""
    train, labels = _blobs(counts, features, 12.0, 0, spread=0)
    test, test_labels = _blobs((50,) * len(counts), features, 12.0, 1, spread=0)
    said = probe.fit(train, Classes(labels, NAMES[: len(counts)]), seed=0).predict(test).argmax(1)
    recalls = [(said[test_labels == label] == label).mean() for label in range(len(counts))]
    assert min(recalls) >= 0.96


def test_logits_too_weak_to_outweigh_the_intercept_are_sharpened(monkeypatch):
    """Even where the strongest regularisation is the only one: its logits are thousandths, the intercept -2.9."""
    monkeypatch.setattr(linear, "INVERSE_REGULARISATIONS", (1e-5,))
    train, labels = _blobs((190, 10), 4, 12.0, 0, spread=0)
    test, test_labels = _blobs((50, 50), 4, 12.0, 1, spread=0)
    assert (fit_linear(train, labels, seed=0).predict(test).argmax(1) == test_labels).mean() >= 0.96


def test_reaches_the_bayes_accuracy_of_two_gaussians():
    # centres sqrt(2) * 1.5 apart: the best plane is right with probability Phi(distance / 2) = 0.856
    train, labels = _blobs((2000, 2000), 5, 1.5, 0)
    test, test_labels = _blobs((10000, 10000), 5, 1.5, 1)
    accuracy = (fit_linear(train, labels, seed=0).predict(test).argmax(1) == test_labels).mean()
    assert accuracy == pytest.approx(0.856, abs=0.008)


def test_of_equal_regularisations_the_weakest_is_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(
        linear, "_regression", lambda c, warm_start=False, make=linear._regression: taken.append(c) or make(c)
    )
    fit_linear(*_blobs((40, 40), 4, 12.0, 0, spread=0), seed=0)
    assert taken[-1] == max(linear.INVERSE_REGULARISATIONS)


def test_pure_noise_stays_at_chance():
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(60, 200)), rng.normal(size=(4000, 200)), np.arange(60) % 2
    said = fit_linear(train, labels, seed=0).predict(test).argmax(1)
    assert (said == np.arange(4000) % 2).mean() == pytest.approx(0.5, abs=0.03)


def test_folds_shrink_to_the_smallest_class_and_one_label_is_enough(caplog):
    train, labels = _blobs((20, 2), 4, 8.0, 0)
    assert fit_linear(train, labels, seed=0).weight.shape == (2, 4)
    with caplog.at_level(logging.INFO):
        fitted = fit_linear(np.array([[0.0, 1.0], [5.0, 1.0]]), np.array([0, 1]), seed=0)
    assert "with one label of a class nothing can be cross-validated" in caplog.text
    assert fitted.predict(np.array([[-1.0, 1.0], [6.0, 1.0]])).argmax(1).tolist() == [0, 1]


def test_a_probe_that_did_not_converge_says_so(monkeypatch, caplog):
    monkeypatch.setattr(linear, "MAX_ITERATIONS", 1)
    with caplog.at_level(logging.WARNING):
        fit_linear(*_blobs((30, 30), 4, 1.0, 0), seed=0)
    assert "had not converged after 1 iterations" in caplog.text


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_head_gives_the_same_logits(num_classes):
    torch = pytest.importorskip("torch")
    train, labels = _blobs((30,) * num_classes, 6, 2.0, 0)
    fitted = fit_linear(train, labels, seed=0)
    assert isinstance(fitted, LinearClassifier)
    with torch.no_grad():
        logits = fitted.head()(torch.from_numpy(train)).numpy()
    np.testing.assert_allclose(logits, fitted.outputs(train), rtol=1e-9, atol=1e-9)
