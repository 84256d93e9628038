import numpy as np
import pytest
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.preprocessing import StandardScaler

from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.probes import ridge
from ssl_lens.evaluation.probes.ridge import Ridge


def _noisy(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 6] and two numbers that depend on them linearly, the second with much noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 6)) * np.array([1, 10, 100, 1, 1, 1]) + 5
    numbers = features[:, :2] @ np.array([[2.0, 0.0], [0.3, 0.1]]) + rng.normal(size=(count, 2)) * np.array([0.1, 2.0])
    return features, numbers


def test_each_number_has_the_regularisation_that_leaves_the_least_error_out():
    features, numbers = _noisy(40, 0)
    fitted = Ridge().fit(features, Numbers(numbers, ("a", "b"), (False, False)), seed=0)
    standard = StandardScaler().fit_transform(features)
    for column in range(2):
        errors = []
        for alpha in ridge.REGULARISATIONS:
            left = []
            for i in range(40):
                others = np.arange(40) != i
                model = PlainRidge(alpha).fit(standard[others], numbers[others, column])
                left.append(model.predict(standard[[i]])[0] - numbers[i, column])
            errors.append(np.mean(np.square(left)))
        best = PlainRidge(ridge.REGULARISATIONS[int(np.argmin(errors))]).fit(standard, numbers[:, column])
        np.testing.assert_allclose(fitted.predict(features)[:, column], best.predict(standard), rtol=1e-6)


def test_numbers_of_new_images():
    fitted = Ridge().fit(*_with_answers(_noisy(200, 0)), seed=0)
    features, numbers = _noisy(500, 1)
    errors = fitted.predict(features) - numbers
    assert errors.std(axis=0) == pytest.approx([0.1, 2.0], rel=0.15)


def _with_answers(both: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, Numbers]:
    return both[0], Numbers(both[1], ("a", "b"), (False, False))


@pytest.mark.parametrize("frequency", [0.5, 0.9])
def test_probabilities_are_calibrated(frequency):
    """Two Gaussians 2 apart: among images said to be of a class with probability p, a fraction p is."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = (rng.random(count) > frequency).astype(np.int64)
        features = rng.normal(size=(count, 20))
        features[:, 0] += 2 * labels
        return features, labels

    features, labels = draw(1000)
    test, truth = draw(20000)
    said = Ridge().fit(features, Classes(labels, ("a", "b")), seed=0).predict(test)[:, 1]
    for low, high in [(0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9)]:
        chosen = (said > low) & (said < high)
        assert truth[chosen].mean() == pytest.approx(said[chosen].mean(), abs=0.12)


@pytest.mark.parametrize("frequencies", [(10, 10), (4, 16), (7, 6, 5)])
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_classes_have_the_scales_and_regularisation_whose_left_out_predictions_correlate_best(frequencies, spread):
    """With a spread, the features that tell the classes apart are the widest: there their own scales are the best."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(frequencies)), frequencies)
    features = rng.normal(size=(len(labels), 40)) + 0.7 * np.eye(40)[labels]
    features[:, : len(frequencies)] *= spread
    names = tuple("abc"[: len(frequencies)])
    fitted = Ridge().fit(features, Classes(labels, names), seed=0)
    signs = 2.0 * np.eye(len(names))[labels] - 1
    found = {}
    scales = {"own": np.full(40, np.sqrt(features.var(axis=0).mean())), "standardised": features.std(axis=0)}
    for kind, scale in scales.items():
        scaled = (features - features.mean(axis=0)) / scale
        for alpha in ridge.REGULARISATIONS:
            left = np.empty_like(signs)
            for i in range(len(labels)):
                others = np.arange(len(labels)) != i
                model = PlainRidge(alpha).fit(scaled[others], signs[others])
                left[i] = model.predict(scaled[[i]])[0] - signs[others].mean(axis=0)
            found[kind, alpha] = (left * (signs - signs.mean(axis=0))).sum() / np.linalg.norm(left)
    said, distance = fitted.weight / fitted.scale, {}
    for kind, alpha in found:
        scale = scales[kind]
        direction = PlainRidge(alpha).fit((features - features.mean(axis=0)) / scale, signs).coef_ / scale
        distance[kind, alpha] = np.abs(said / np.linalg.norm(said) - direction / np.linalg.norm(direction)).max()
    chosen = min(distance, key=lambda key: distance[key])
    assert distance[chosen] < 1e-9
    assert found[chosen] == pytest.approx(max(found.values()), rel=1e-6)
    assert chosen[0] == "own" or spread == 1
