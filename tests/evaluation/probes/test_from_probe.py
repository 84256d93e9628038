"""Training that begins at the probe, and is kept only where images that were left out gain by it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_lens.backbones.lens_mlp import LensMLP, LensMLPOptions
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.evaluation.answers import Answers, Classes, Numbers
from ssl_lens.evaluation.probes import from_probe
from ssl_lens.evaluation.probes.finetune import Finetune
from ssl_lens.evaluation.probes.fitted_network import FittedNetwork
from ssl_lens.evaluation.probes.from_probe import best_epoch, folds
from ssl_lens.evaluation.probes.objective import objective
from ssl_lens.evaluation.probes.probe import Epoch
from ssl_lens.evaluation.probes.ridge import Ridge
from ssl_lens.evaluation.probes.trainer import Settings, Trainer
from ssl_lens.representation.frozen import FrozenBackbone

SETTINGS = Settings(epochs=4, batch_size=16, lr=3e-2, augmentation="right-angle")


@pytest.fixture
def probe() -> Iterator[Finetune]:
    probe = Finetune(SETTINGS)
    with probe.ready():
        yield probe


def _frozen() -> FrozenBackbone:
    torch.manual_seed(0)
    network = ResNet(1, ResNetOptions(width=8, depths=(1,), stem_stride=1))
    return FrozenBackbone(Preprocess.plain(1), network, "view")


def _images(count: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Of a bright and a dark spot, next to one another in class 1, four pixels apart in class 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(0, 0.2, (count, 1, 12, 12)).astype(np.float32)
    for image, label in zip(images[:, 0], labels, strict=True):
        y, x = rng.integers(1, 7, 2)
        image[y, x] += 4
        image[y, x + (1 if label else 4)] -= 4
        image[:] = np.rot90(image, rng.integers(4))
    return torch.from_numpy(images), labels


def _fitted(
    probe: Finetune, images: Tensor, answers: Answers, frozen: FrozenBackbone
) -> tuple[FittedNetwork, list[Epoch]]:
    epochs: list[Epoch] = []
    return probe.fit(images, answers, seed=0, frozen=frozen, trained=True, on_epoch=epochs.append), epochs


def _features(frozen: FrozenBackbone, images: Tensor) -> np.ndarray:
    with torch.no_grad():
        return frozen.represent(images).features.numpy()


def test_where_nothing_is_to_be_learned_it_is_the_probe(probe):
    images, labels = _images(60, 0)
    answers = Classes(np.random.default_rng(1).permutation(labels), ("a", "b"))
    frozen = _frozen()
    fitted, epochs = _fitted(probe, images, answers, frozen)
    features = _features(frozen, images)
    expected = Ridge().fit(features, answers, seed=0).predict(features)
    np.testing.assert_allclose(fitted.predict(images), expected, atol=1e-5)
    assert not fitted.network.quarter_turns
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2, 3, 4]
    assert fitted.validation_loss == pytest.approx(epochs[0].validation_loss)


def test_where_it_pays_it_trains_on_all_images_for_as_long_as_it_paid(probe, monkeypatch):
    images, labels = _images(100, 0)
    unseen, truth = _images(200, 1)
    answers = Classes(labels, ("a", "b"))
    frozen = _frozen()
    trained: list[tuple[int, int]] = []  # on so many images, for so many epochs
    epochs_of = Trainer.epochs

    def noted(trainer, network, groups, inputs, goal, fit, **others):
        trained.append((len(fit), 0))
        for each in epochs_of(trainer, network, groups, inputs, goal, fit, **others):
            trained[-1] = (len(fit), each[0].epoch)
            yield each

    monkeypatch.setattr(Trainer, "epochs", noted)
    fitted, epochs = _fitted(probe, images, answers, frozen)
    best = min(epochs, key=lambda epoch: epoch.validation_loss).epoch
    assert best > 0
    assert trained == [(80, 4)] * 5 + [(100, best)]
    assert fitted.network.quarter_turns
    ridge = Ridge().fit(_features(frozen, images), answers, seed=0).predict(_features(frozen, unseen))
    before, after = ((said.argmax(1) == truth).mean() for said in (ridge, fitted.predict(unseen)))
    assert after > before + 0.05
    assert fitted.validation_loss == pytest.approx(epochs[best].validation_loss)


def test_few_images_leave_none_out(probe):
    images, labels = _images(49, 0)
    values = np.random.default_rng(0).normal(size=(49, 1))
    frozen = _frozen()
    for answers in (Numbers(values, ("t",), (False,)), Classes(labels, ("a", "b"))):
        fitted, epochs = _fitted(probe, images, answers, frozen)
        features = _features(frozen, images)
        expected = Ridge().fit(features, answers, seed=0).predict(features)
        np.testing.assert_allclose(fitted.predict(images), expected, atol=1e-5)
        assert (epochs, fitted.validation_loss) == ([], None)


def test_folds_leave_every_image_out_once_or_enough_of_them():
    labels = np.repeat([0, 1], [30, 60])
    found = folds(Classes(labels, ("a", "b")), seed=0)
    assert sorted(np.concatenate([judged for _, judged in found])) == list(range(90))
    for fit, judged in found:
        assert np.bincount(labels[judged]).tolist() == [6, 12]
        assert sorted([*fit, *judged]) == list(range(90))
    many = folds(Numbers(np.zeros((1200, 1)), ("t",), (False,)), seed=0)
    assert [len(judged) for _, judged in many] == [240, 240]
    assert len(folds(Classes(np.array([0] * 60 + [1] * 3), ("a", "b")), seed=0)) == 3
    assert folds(Classes(np.array([0] * 60 + [1]), ("a", "b")), seed=0) == []
    assert folds(Numbers(np.zeros((49, 1)), ("t",), (False,)), seed=0) == []


def test_an_epoch_must_gain_two_standard_errors_over_the_probe():
    probe = np.zeros(4)
    little, much = np.array([-0.3, -0.3, -0.3, 0.2]), np.array([-0.3, -0.3, -0.3, 0.0])
    assert little.mean() / (little.std(ddof=1) / 2) == pytest.approx(-1.4)
    assert much.mean() / (much.std(ddof=1) / 2) == pytest.approx(-3)
    for curve, expected in (
        ([probe, probe + 1, little], 0),
        ([probe, much + 0.01, much, much + 0.02], 2),
        ([probe, probe], 0),
        ([probe, probe + 0.1], 0),
    ):
        errors = np.zeros((len(curve), 4))
        assert best_epoch(np.stack(curve), errors) == 0  # more certain, no more right
        errors[0, 1] = 1
        assert best_epoch(np.stack(curve), errors) == expected
    errors = np.array([[0, 1, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0]])
    assert best_epoch(np.stack([probe, much + 0.01, much]), errors) == 1  # epoch 2 errs as often as the probe


def test_weights_are_averaged_over_the_last_steps():
    """The mean m of weights w follows m + (w - m) / 4 over 40 steps, from the weights that training begins with."""
    images, labels = _images(16, 0)
    goal = objective(Classes(labels, ("a", "b")), np.arange(16))
    tuned = Finetune(Settings(epochs=40, batch_size=16, augmentation="none"))

    def weights(*, averaged: bool) -> list[Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 2))
        found = [network[1].weight.detach().clone()]
        groups = [{"params": list(network.parameters()), "rate": 0.5}]
        epochs = tuned.trainer.epochs(
            network, groups, images, goal, np.arange(16), count=40, lr=0.1, seed=0, averaged=averaged
        )
        return found + [given[1].weight.detach().clone() for _, given in epochs]

    with tuned.ready():
        plain, averaged = weights(averaged=False), weights(averaged=True)
    mean = plain[0]
    for of_step, expected in zip(plain[1:], averaged[1:], strict=True):
        mean = mean + (of_step - mean) / 4
        torch.testing.assert_close(expected, mean)
    first = (plain[2] - plain[1]).abs()  # of a warm-up from 0; AdamW's second step is at most its learning rate
    assert first.max() <= 0.5 * 0.1 / 3 * 1.01
    assert first.max() > 0.5 * 0.1 / 3 * 0.5


def test_a_fixed_front_sees_each_image_once(monkeypatch):
    torch.manual_seed(0)
    network = LensMLP(1, LensMLPOptions(width=8))
    images = torch.randn(12, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    network.set_domain(network.fixed_features(images))
    frozen = FrozenBackbone(Preprocess.plain(1), network, "joined")
    seen: list[int] = []
    look = LensMLP.fixed_features
    monkeypatch.setattr(LensMLP, "fixed_features", lambda self, batch: seen.append(len(batch)) or look(self, batch))
    monkeypatch.setattr(from_probe, "FEWEST", 12)
    monkeypatch.setattr(from_probe, "best_epoch", lambda losses, errors: len(losses) - 1)
    tuned = Finetune(Settings(epochs=2, batch_size=8, lr=1e-2))
    with tuned.ready():
        fitted, epochs = _fitted(tuned, images, Classes(np.arange(12) % 2, ("a", "b")), frozen)
        assert sum(seen) == 12 + 1  # and one, to count what it says
        assert tuned.trainer.augmentation == "right-angle"
        assert not fitted.network.quarter_turns
        assert fitted.predict(images).shape == (12, 2)
    assert len(epochs) == 3
