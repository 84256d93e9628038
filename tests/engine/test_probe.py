"""The online probe: judged on images that it was not trained on."""

import copy

import numpy as np
import pytest
import torch

from ssl_lens.backbones.lens_mlp import LensMLP, LensMLPOptions
from ssl_lens.backbones.lens_wavelets import LensWavelets
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.engine import probe as module
from ssl_lens.engine.probe import OnlineProbe
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone, adapt

LABELS = np.arange(40) % 2


def images_of(pixels: np.ndarray, labels: np.ndarray = LABELS) -> ImageSet:
    return ImageSet(pixels.astype(np.float32), tuple(f"{i}.npy" for i in range(len(labels))), labels, ("arc", "ring"))


def measured_on(monkeypatch: pytest.MonkeyPatch, features: np.ndarray, labels: np.ndarray = LABELS) -> dict[str, float]:
    """What the probe says of features that are given, whatever the network."""
    monkeypatch.setattr(module, "extract", lambda frozen, images: features.astype(np.float32))
    probe = OnlineProbe(images_of(np.zeros((len(labels), 1, 4, 4)), labels), Preprocess.plain(1), "view", seed=0)
    return probe.measure(ResNet(1, ResNetOptions()))


@pytest.mark.parametrize("correct", [0, 3, 8])
def test_it_votes_with_one_part_and_is_judged_on_the_other(monkeypatch: pytest.MonkeyPatch, correct: int) -> None:
    """Features are the images' own numbers; of the 8 test images the first `correct` get their own class."""
    seen, pools = {}, []

    def vote(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, *, k: int, num_classes: int) -> np.ndarray:
        seen.update(train=train[:, 0], labels=train_labels, test=test[:, 0], k=k)
        truth = LABELS[test[:, 0].astype(int)]
        answers = np.where(np.arange(len(test)) < correct, truth, 1 - truth)
        return np.eye(num_classes)[answers]

    monkeypatch.setattr(module, "knn_scores", vote)
    monkeypatch.setattr(module, "fit_whitening", lambda pool: (pools.append(pool), lambda rows: rows)[1])
    assert measured_on(monkeypatch, np.arange(40)[:, None]) == dict.fromkeys(OnlineProbe.figures, correct / 8)
    assert sorted([*seen["train"], *seen["test"]]) == list(range(40))
    assert len(seen["test"]) == 8
    assert (seen["labels"] == LABELS[seen["train"].astype(int)]).all()
    assert seen["k"] == 20
    (pool,) = pools
    assert (pool[:, 0] == seen["train"]).all()  # no image that is judged has a say in the whitening


def test_whitened_features_show_what_others_outweigh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class is a quarter of what else varies, in six directions; whitened, it is one direction of seven."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    varying = np.column_stack([4 * rng.normal(size=(400, 6)), np.where(labels == 1, 1.0, -1.0)])
    features = varying @ np.linalg.qr(rng.normal(size=(7, 7)))[0]
    found = measured_on(monkeypatch, features, labels)
    assert found["probe_knn"] < 0.75
    assert found["probe_knn_whitened"] > 0.85


def test_a_network_with_a_fixed_front_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The features are those of the whole network, in the domain of the probe's images."""
    rng = np.random.default_rng(0)
    images = images_of(rng.gamma(2.0, 1.0, (40, 1, 48, 48)))
    torch.manual_seed(0)
    network = LensMLP(1, LensMLPOptions(width=8))
    preprocess = Preprocess.plain(1)
    probe, given = OnlineProbe(images, preprocess, "joined", seed=0), []
    judge = OnlineProbe._judge
    monkeypatch.setattr(
        OnlineProbe, "_judge", lambda self, features: (given.append(features), judge(self, features))[1]
    )
    looks = []
    stages = LensWavelets.stages
    monkeypatch.setattr(LensWavelets, "stages", lambda self, rows: (looks.append(len(rows)), stages(self, rows))[1])
    probe.measure(network)
    looks.clear()
    with torch.no_grad():
        network.layers[0].weight.mul_(2)
    before = copy.deepcopy(network.state_dict())
    probe.measure(network)
    assert looks == []
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    adapt(network, preprocess, images.images)
    expected = extract(FrozenBackbone(preprocess, network, "joined"), images.images)
    np.testing.assert_allclose(given[1], expected, atol=1e-5)
    assert np.abs(given[0] - expected).max() > 1e-2


def test_the_wavelets_are_judged_by_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their own rings, whole, whatever the network of the run takes of an image."""
    images = images_of(np.random.default_rng(0).gamma(2.0, 1.0, (40, 1, 48, 48)))
    judge, given = OnlineProbe._judge, []
    monkeypatch.setattr(OnlineProbe, "_judge", lambda self, rows: (given.append(rows), judge(self, rows))[1])
    probe = OnlineProbe(images, Preprocess.plain(1).fitted(16, (32, 32)), "view", seed=3)
    of_rings = OnlineProbe(images, Preprocess.plain(1), "log_rings", seed=3)
    assert probe.measure_wavelets() == of_rings.measure(LensWavelets(1))
    assert given[0].shape == (40, 156)
    np.testing.assert_array_equal(*given)
    assert probe.trials == 8


@pytest.mark.parametrize("side", [1, 3])
def test_images_of_any_size_have_wavelets(side: int) -> None:
    images = images_of(np.random.default_rng(0).gamma(2.0, 1.0, (40, 1, side, side)))
    assert OnlineProbe(images, Preprocess.plain(1), "view", seed=0).measure_wavelets().keys() == set(
        OnlineProbe.figures
    )
