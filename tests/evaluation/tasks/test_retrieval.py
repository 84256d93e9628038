import numpy as np
import pytest

from ssl_lens.errors import InputError
from ssl_lens.evaluation.tasks.retrieval import retrieval_scores


def test_precision_and_average_precision_by_hand():
    """Directions at 0, 10, 25 and 90 degrees, of classes a, a, b, b.

    In order of cosine: 0 -> 10 25 90: right at ranks 1. 10 -> 0 25 90: 1. 25 -> 10 0 90: 3. 90 -> 25 10 0: 1.
    """
    angles = np.radians([0, 10, 25, 90])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [50], [0.1], [3]])
    scores = retrieval_scores(np.array([0, 0, 1, 1]), features)
    assert scores["precision_at_1"] == 0.75
    assert scores["precision_at_5"] == pytest.approx(1 / 3)  # there are only three others
    assert scores["map"] == pytest.approx((1 + 1 + 1 / 3 + 1) / 4)


def test_many_images_in_chunks_agree_with_the_definition():
    rng = np.random.default_rng(0)
    labels, features = rng.integers(0, 3, 700), rng.normal(size=(700, 4)).astype(np.float32)
    scores = retrieval_scores(labels, features)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected = []
    for i in range(700):
        others = np.delete(np.arange(700), i)
        order = others[np.argsort(-(unit[others] @ unit[i]), kind="stable")]
        expected.append((labels[order[:10]] == labels[i]).mean())
    assert scores["precision_at_10"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert scores["map"] == pytest.approx(1 / 3, abs=0.02)  # noise


def test_an_image_alone_in_its_class_does_not_ask():
    features = np.array([[1.0, 0], [1, 0.1], [0, 1]])
    assert retrieval_scores(np.array([0, 0, 1]), features)["precision_at_1"] == 1
    with pytest.raises(InputError, match="retrieval needs two images of a class"):
        retrieval_scores(np.arange(3), features)
