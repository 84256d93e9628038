import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_run import write_labelled_images

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.metrics import regression_scores
from ssl_lens.evaluation.probes import trainer
from ssl_lens.evaluation.probes.finetune import Finetune
from ssl_lens.evaluation.probes.objective import divide_labels, huber, objective
from ssl_lens.evaluation.probes.probe import Epoch
from ssl_lens.evaluation.probes.trainer import Settings
from ssl_lens.representation.frozen import FrozenBackbone

SETTINGS = Settings(epochs=6, batch_size=16, lr=2e-3)
Data = tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    """Training images and labels, test images and labels; of flux about 1."""
    root = tmp_path_factory.mktemp("finetune")
    images = load_images(write_labelled_images(root / "images", per_class=80), cache=root / "cache")
    pixels = torch.from_numpy(images.images[:][..., 4:36, 4:36]) * 1e12
    test = np.arange(160) % 4 == 0
    return pixels[~test], images.labels[~test], pixels[test], images.labels[test]


def _backbone(drop_path: float = 0.1) -> Swin:
    torch.manual_seed(0)
    return Swin(1, SwinOptions(embed_dim=16, depths=(1, 1), num_heads=(2, 2), drop_path=drop_path))


def _probabilities(
    data: Data, settings: Settings, *, backbone: MapBackbone | None = None, seed: int = 0
) -> tuple[np.ndarray, list[Epoch]]:
    train, labels, test, _ = data
    epochs: list[Epoch] = []
    probe = Finetune(settings)
    with probe.ready():
        fitted = probe.fit(
            train,
            Classes(labels, ("a", "b")),
            seed=seed,
            frozen=FrozenBackbone(Preprocess.plain(1), backbone or _backbone()),
            trained=False,
            on_epoch=epochs.append,
        )
        return fitted.predict(test), epochs


def _accuracy(data: Data, probabilities: np.ndarray) -> float:
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    return (probabilities.argmax(1) == data[3]).mean()


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        replace(SETTINGS, augmentation="right-angle", pooling="stats"),
        replace(SETTINGS, augmentation="none", pooling="stages", bf16=True),
    ],
    ids=["continuous", "right-angle stats", "none stages bf16"],
)
def test_learns_separable_classes(data, settings):
    prediction, epochs = _probabilities(data, settings)
    assert _accuracy(data, prediction) >= 0.95
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss


def test_the_seed_decides_and_the_given_backbone_stays(data):
    few = (data[0][::4], data[1][::4], *data[2:])
    backbone = _backbone().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    short = Settings(epochs=1, batch_size=16)
    first, again, other = (_probabilities(few, short, backbone=backbone, seed=seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_validation_is_stratified_and_left_out_only_where_images_are_few():
    labels = np.repeat([0, 1], [50, 100])
    fit, validation = divide_labels(labels, seed=0)
    assert np.bincount(labels[validation]).tolist() == [10, 20]
    assert sorted([*fit, *validation]) == list(range(150))
    fit, validation = divide_labels(np.repeat([0, 1], [49, 100]), seed=0)
    assert validation is None
    assert fit.tolist() == list(range(149))


def test_the_epoch_with_the_lowest_validation_loss_is_kept(data, monkeypatch):
    """With a learning rate that later destroys the network, stopping must bring back an earlier epoch."""
    rates = np.repeat([[2e-3], [10.0]], [4, 5], axis=0).repeat(6, 1)
    monkeypatch.setattr(trainer, "_learning_rates", lambda highest, epochs, steps_per_epoch: rates)
    prediction, epochs = _probabilities(data, Settings(epochs=9, batch_size=16, patience=2))
    assert _accuracy(data, prediction) >= 0.9
    best = min(epochs, key=lambda epoch: epoch.validation_loss).epoch
    assert len(epochs) == best + 2


def test_a_loss_that_is_not_finite_is_one_line(data):
    train, *rest = data
    with pytest.raises(InputError, match="lower lr=0.002"):
        _probabilities((train * torch.nan, *rest), SETTINGS)


def test_two_trainings_of_different_precision_in_one_process(data):
    """Accelerate's state belongs to the process; the threads of PyTorch too, which are as before afterwards."""
    few = (data[0][::8], data[1][::8], *data[2:])
    threads = torch.get_num_threads()
    for bf16 in (False, True, False):
        probabilities, _ = _probabilities(few, Settings(epochs=1, batch_size=16, bf16=bf16))
        assert np.isfinite(probabilities).all()
    assert torch.get_num_threads() == threads


def test_huber_is_quadratic_up_to_one_standard_deviation():
    losses = huber(torch.tensor([[0.5, 0.0], [3.0, 0.0]]), torch.zeros(2, 2))
    assert losses.tolist() == [0.125 / 2, 2.5 / 2]


def test_a_number_that_is_constant_is_one_line():
    with pytest.raises(InputError, match="t is 2.5 of all 30 images; nothing to learn"):
        objective(Numbers(np.full((30, 1), 2.5), ("t",), (False,)), np.arange(30))


def test_a_network_measures_width_and_flux():
    rng = np.random.default_rng(0)
    width, flux = rng.uniform(1, 4, 240), 10 ** rng.uniform(0, 1, 240)
    y, x = np.mgrid[-8:8, -8:8] + 0.5
    images = flux[:, None, None] * np.exp(-(x**2 + y**2) / (2 * width[:, None, None] ** 2))
    images += rng.normal(0, 0.02, images.shape)
    pixels, values = torch.from_numpy(images[:, None].astype(np.float32)), np.stack([width, flux], axis=1)
    probe = Finetune(Settings(epochs=12, batch_size=16, lr=5e-3, augmentation="right-angle"))
    torch.manual_seed(0)
    backbone = ResNet(1, ResNetOptions(width=8, depths=(1, 1), stem_stride=4))
    answers = Numbers(values[:180], ("w", "f"), (False, False))
    frozen = FrozenBackbone(Preprocess.plain(1), backbone)
    with probe.ready():
        fitted = probe.fit(pixels[:180], answers, seed=0, frozen=frozen, trained=False, on_epoch=lambda epoch: None)
        said = fitted.predict(pixels[180:])
    assert all(regression_scores(values[180:, i], said[:, i])["r2"] > 0.8 for i in range(2))
    assert fitted.parameters == sum(p.numel() for p in backbone.parameters()) + 2 * 17
    np.testing.assert_allclose(fitted.meaning.mean, values[:180].mean(0), rtol=0.1)  # of the part to fit alone


def test_off_a_terminal_a_long_training_says_how_far_it_is(data, monkeypatch, caplog):
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_LINES", 0.0)
    few = (data[0][::8], data[1][::8], *data[2:])
    with caplog.at_level(logging.INFO):
        _probabilities(few, Settings(epochs=2, batch_size=16))
    assert [line.partition(":")[0] for line in caplog.messages] == ["seed 0, epoch 1 of 2", "seed 0, epoch 2 of 2"]
