import math

import numpy as np
import pytest

from ssl_lens.representation.neighbours import knn_probabilities, knn_scores, nearest


def _scalar_knn(train, labels, test, num_classes, k, temperature):
    """The definition as scalar loops."""
    scores = np.zeros((len(test), num_classes))
    for m, query in enumerate(test):
        cosines = [
            sum(a * b for a, b in zip(query, row, strict=True))
            / math.sqrt(sum(a * a for a in query) * sum(b * b for b in row))
            for row in train
        ]
        for j in sorted(range(len(train)), key=lambda j: -cosines[j])[:k]:
            scores[m, labels[j]] += math.exp(cosines[j] / temperature)
    return scores


@pytest.mark.parametrize("name", ["knn", "knn_fewclasses"])
def test_golden(golden, name):
    with np.load(golden / f"{name}.npz") as file:
        expected = dict(file)
    scores = knn_scores(
        expected["train_features_raw"].astype(np.float64),
        expected["train_labels"],
        expected["test_features_raw"].astype(np.float64),
        num_classes=int(expected["num_classes"]),
        k=int(expected["k"]),
        temperature=float(expected["T"]),
    )
    np.testing.assert_allclose(scores, expected["scores"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(knn_probabilities(scores), expected["probs"], rtol=1e-10, atol=1e-10)
    assert (scores.argmax(1) == expected["pred"]).all()
    assert 100 * (scores.argmax(1) == expected["test_labels"]).mean() == pytest.approx(float(expected["top1"]))


@pytest.mark.parametrize(("k", "num_classes", "tests"), [(5, 3, 17), (1, 2, 1), (20, 7, 300)])
def test_scores_match_scalar_loops(k, num_classes, tests):
    rng = np.random.default_rng(k)
    train, test = rng.normal(size=(40, 6)), rng.normal(size=(tests, 6))
    labels = rng.integers(0, num_classes, 40)
    scores = knn_scores(train, labels, test, num_classes=num_classes, k=k, temperature=0.07)
    np.testing.assert_allclose(scores, _scalar_knn(train, labels, test, num_classes, k, 0.07), rtol=1e-10)


def test_neighbours_that_float32_cannot_order_are_ranked_in_float64():
    query = np.array([[1.0, 0.0]])
    angles = 0.3 + 1e-10 * np.arange(8)[::-1]  # cosines apart by 3e-11: equal in float32
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    scores = knn_scores(train, np.arange(8), query, num_classes=8, k=4)
    assert (scores[0] > 0).tolist() == [False] * 4 + [True] * 4


def test_k_above_the_number_of_training_images_uses_them_all():
    rng = np.random.default_rng(0)
    train, test, labels = rng.normal(size=(6, 4)), rng.normal(size=(5, 4)), np.array([0, 0, 0, 1, 1, 1])
    scores = knn_scores(train, labels, test, num_classes=2, k=20)
    np.testing.assert_allclose(scores, _scalar_knn(train, labels, test, 2, 6, 0.07), rtol=1e-10)


def test_float32_features_give_float32_scores_and_probabilities_sum_to_one():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(50, 8)).astype(np.float32), rng.normal(size=(9, 8)).astype(np.float32)
    scores = knn_scores(train, np.arange(50) % 3, test, num_classes=3)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(knn_probabilities(scores).sum(1), 1, rtol=1e-6)


def test_neighbours_are_nearest_first_with_their_cosines():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(600, 5)), rng.normal(size=(300, 5))
    found = nearest(train, test, 7)
    cosine = test @ train.T / np.linalg.norm(test, axis=1)[:, None] / np.linalg.norm(train, axis=1)
    np.testing.assert_array_equal(found.indices, np.argsort(-cosine, axis=1)[:, :7])
    np.testing.assert_allclose(found.cosine, -np.sort(-cosine, axis=1)[:, :7], atol=1e-12)
    assert nearest(train[:3], test, 7).indices.shape == (300, 3)
