import numpy as np
import pytest
import torch
from tiny_run import write_labelled_images

from ssl_lens.data.images import load_images
from ssl_lens.errors import InputError
from ssl_lens.evaluation import finetune
from ssl_lens.evaluation.finetune import Settings, finetuned_probabilities
from ssl_lens.models.swin import Swin

SETTINGS = Settings(epochs=6, batch_size=16, lr=2e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Training images and labels, test images and labels; of flux about 1."""
    root = tmp_path_factory.mktemp("finetune")
    images = load_images(write_labelled_images(root / "images", per_class=80), cache=root / "cache")
    pixels = torch.from_numpy(np.array(images.images[..., 4:36, 4:36])) * 1e12
    test = np.arange(160) % 4 == 0
    return pixels[~test], images.labels[~test], pixels[test], images.labels[test]


def _backbone(drop_path: float = 0.1) -> Swin:
    torch.manual_seed(0)
    return Swin(1, embed_dim=16, depths=(1, 1), num_heads=(2, 2), drop_path=drop_path)


def _accuracy(data, settings: Settings, seed: int = 0) -> float:
    train, labels, test, test_labels = data
    probabilities = finetuned_probabilities(
        _backbone(), train, labels, test, num_classes=2, settings=settings, seed=seed
    )
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    return (probabilities.argmax(1) == test_labels).mean()


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        Settings(epochs=6, batch_size=16, lr=2e-3, augmentation="right-angle", pooling="stats"),
        Settings(epochs=6, batch_size=16, lr=2e-3, augmentation="none", pooling="stages", bf16=True),
    ],
    ids=["continuous", "right-angle stats", "none stages bf16"],
)
def test_learns_separable_classes(data, settings):
    assert _accuracy(data, settings) >= 0.95


def test_the_seed_decides_and_the_given_backbone_stays(data):
    train, labels, test, _ = data
    backbone = _backbone().eval().requires_grad_(False)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    short = Settings(epochs=1, batch_size=16)
    first, again, other = (
        finetuned_probabilities(backbone, train[::4], labels[::4], test, num_classes=2, settings=short, seed=seed)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert abs(first - other).max() > 1e-4
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_validation_is_stratified_and_left_out_only_where_images_are_few():
    labels = np.repeat([0, 1], [50, 100])
    fit, validation = finetune._divide(labels, seed=0)
    assert np.bincount(labels[validation]).tolist() == [10, 20]
    assert sorted([*fit, *validation]) == list(range(150))
    fit, validation = finetune._divide(np.repeat([0, 1], [49, 100]), seed=0)
    assert validation is None
    assert fit.tolist() == list(range(149))


def test_the_epoch_with_the_lowest_validation_loss_is_kept(data, monkeypatch):
    """With a rising learning rate that destroys the network, stopping must bring back an earlier epoch."""
    monkeypatch.setattr(
        finetune, "cosine", lambda base, final, epochs, steps, warmup_epochs: np.repeat([2e-3, 10.0], [4 * steps, 99])
    )
    assert _accuracy(data, Settings(epochs=9, batch_size=16, patience=2)) >= 0.9


def test_a_loss_that_is_not_finite_is_one_line(data):
    train, labels, test, _ = data
    with pytest.raises(InputError, match="lower --lr"):
        finetuned_probabilities(_backbone(), train * torch.nan, labels, test, num_classes=2, settings=SETTINGS, seed=0)
