from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_run import write_labelled_images

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.evaluation import finetune
from ssl_lens.evaluation.classification import classify, divide_fit, train_classifier
from ssl_lens.evaluation.finetune import Epoch, Settings, predictor, training_processes
from ssl_lens.evaluation.protocol import Prediction

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


def _prediction(
    data: Data, settings: Settings, *, backbone: Backbone | None = None, seed: int = 0, bf16: bool = False
) -> tuple[Prediction, list[Epoch]]:
    train, labels, test, _ = data
    epochs: list[Epoch] = []
    with training_processes(settings, bf16=bf16) as trainer:
        classifier = train_classifier(
            trainer, backbone or _backbone(), train, labels, num_classes=2, seed=seed, on_epoch=epochs.append
        )
        return classify(trainer, classifier, test), epochs


def _accuracy(data: Data, prediction: Prediction) -> float:
    np.testing.assert_allclose(prediction.probabilities.sum(1), 1, atol=1e-6)
    return (prediction.probabilities.argmax(1) == data[3]).mean()


@pytest.mark.parametrize(
    ("settings", "bf16"),
    [
        (SETTINGS, False),
        (replace(SETTINGS, augmentation="right-angle", pooling="stats"), False),
        (replace(SETTINGS, augmentation="none", pooling="stages"), True),
    ],
    ids=["continuous", "right-angle stats", "none stages bf16"],
)
def test_learns_separable_classes(data, settings, bf16):
    prediction, epochs = _prediction(data, settings, bf16=bf16)
    assert _accuracy(data, prediction) >= 0.95
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss


def test_the_seed_decides_and_the_given_backbone_stays(data):
    few = (data[0][::4], data[1][::4], *data[2:])
    backbone = _backbone().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    short = Settings(epochs=1, batch_size=16)
    first, again, other = (_prediction(few, short, backbone=backbone, seed=seed)[0].probabilities for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_the_head_is_the_authors_on_the_view_and_a_normalised_linear_layer_on_other_poolings():
    """ResNet-18 with a linear layer to 1000 classes has 11,689,512 parameters at 3 channels."""
    image = torch.zeros(1, 3, 32, 32)
    published = predictor(ResNet(3, ResNetOptions(stem_stride=4)), 1000, "view", image)
    assert published.parameter_count == 11_689_512
    assert predictor(ResNet(3, ResNetOptions(stem_stride=4)), 2, "stats", image).head[0].normalized_shape == (3 * 512,)


def test_validation_is_stratified_and_left_out_only_where_images_are_few():
    labels = np.repeat([0, 1], [50, 100])
    fit, validation = divide_fit(labels, seed=0)
    assert np.bincount(labels[validation]).tolist() == [10, 20]
    assert sorted([*fit, *validation]) == list(range(150))
    fit, validation = divide_fit(np.repeat([0, 1], [49, 100]), seed=0)
    assert validation is None
    assert fit.tolist() == list(range(149))


def test_the_epoch_with_the_lowest_validation_loss_is_kept(data, monkeypatch):
    """With a learning rate that later destroys the network, stopping must bring back an earlier epoch."""
    monkeypatch.setattr(
        finetune, "_learning_rates", lambda settings, count: np.repeat([[2e-3], [10.0]], [4, 5], axis=0).repeat(6, 1)
    )
    prediction, epochs = _prediction(data, Settings(epochs=9, batch_size=16, patience=2))
    assert _accuracy(data, prediction) >= 0.9
    best = min(epochs, key=lambda epoch: epoch.validation_loss).epoch
    assert len(epochs) == best + 2


def test_batches_are_of_equal_size_and_the_rate_warms_up_and_falls():
    rates = finetune._learning_rates(Settings(epochs=10, batch_size=64, lr=1.0), 130)
    assert rates.shape == (10, 3)
    assert rates[0].tolist() == [0, 0.5, 1]  # a tenth of the steps
    assert np.all(np.diff(rates.ravel()[2:]) <= 0)
    assert 0 < rates[-1, -1] < 0.01


def test_a_loss_that_is_not_finite_is_one_line(data):
    train, *rest = data
    with pytest.raises(InputError, match="lower --lr"):
        _prediction((train * torch.nan, *rest), SETTINGS)
