"""The online probe: judged on images that it was not trained on."""

import numpy as np
import pytest

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.engine import probe as module
from ssl_lens.engine.probe import OnlineProbe


@pytest.mark.parametrize("correct", [0, 3, 8])
def test_it_votes_with_one_part_and_is_judged_on_the_other(monkeypatch: pytest.MonkeyPatch, correct: int) -> None:
    """Features are the images' own numbers; of the 8 test images the first `correct` get their own class."""
    labels = np.arange(40) % 2
    names = tuple(f"{i}.npy" for i in range(40))
    images = ImageSet(np.zeros((40, 1, 4, 4), np.float32), names, labels, ("arc", "ring"))
    features = np.arange(40, dtype=np.float32)[:, None]
    seen = {}

    def vote(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, *, k: int, num_classes: int) -> np.ndarray:
        seen.update(train=train[:, 0], labels=train_labels, test=test[:, 0], k=k)
        truth = labels[test[:, 0].astype(int)]
        answers = np.where(np.arange(len(test)) < correct, truth, 1 - truth)
        return np.eye(num_classes)[answers]

    monkeypatch.setattr(module, "FrozenBackbone", lambda preprocess, backbone, pooling: backbone)
    monkeypatch.setattr(module, "extract", lambda frozen, images, **options: features)
    monkeypatch.setattr(module, "knn_scores", vote)
    measured = OnlineProbe(images, Preprocess.plain(1), "stage_rings", seed=0).measure(ResNet(1, ResNetOptions()))
    assert measured == {"probe_knn": correct / 8}
    assert sorted([*seen["train"], *seen["test"]]) == list(range(40))
    assert len(seen["test"]) == 8
    assert (seen["labels"] == labels[seen["train"].astype(int)]).all()
    assert seen["k"] == 20
