import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.pixels.stretch import no_stretch
from ssl_lens.representation.extract import extract, preprocessed
from ssl_lens.representation.frozen import FrozenBackbone


class TwoStages(MapBackbone):
    """A convolution that halves, twice."""

    def __init__(self) -> None:
        super().__init__(in_channels=1, embed_dim=3, reduction=4)
        self.first, self.second = nn.Conv2d(1, 2, 2, stride=2), nn.Conv2d(2, 3, 2, stride=2)

    def stages(self, images: Tensor) -> list[Tensor]:
        first = self.first(images)
        return [first, self.second(first)]

    def config(self) -> dict:
        return {}


@pytest.fixture
def frozen() -> FrozenBackbone:
    torch.manual_seed(0)
    return FrozenBackbone(Preprocess(None, 1, no_stretch(1), mean=[5.0], std=[2.0], sky=[5.0]), TwoStages(), "stages")


IMAGES = np.random.default_rng(0).normal(5, 2, (7, 1, 8, 8)).astype(np.float32)


def test_features_are_mean_and_statistics_of_the_maps(frozen):
    stages = [stage.numpy() for stage in frozen.backbone.stages(frozen.preprocess(torch.from_numpy(IMAGES)))]
    statistics = [np.concatenate([m.mean((2, 3)), m.max((2, 3)), m.std((2, 3))], axis=1) for m in stages]
    expected = {"view": stages[1].mean((2, 3)), "stats": statistics[1], "stages": np.concatenate(statistics, axis=1)}
    for pooling, features in expected.items():
        frozen.pooling = pooling
        np.testing.assert_allclose(extract(frozen, IMAGES), features, atol=1e-6)


def test_order_and_values_do_not_depend_on_the_batch_size(frozen):
    whole = extract(frozen, IMAGES)
    assert whole.dtype == np.float32
    assert whole.shape == (7, 15)
    np.testing.assert_allclose(extract(frozen, IMAGES, batch_size=3), whole, atol=1e-6)
    np.testing.assert_array_equal(extract(frozen, IMAGES), whole)


def test_read_only_memory_maps_are_read(frozen, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(extract(frozen, mapped), extract(frozen, IMAGES))
    np.testing.assert_allclose(preprocessed(frozen.preprocess, mapped, batch_size=4), (IMAGES - 5) / 2, atol=1e-6)
