import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.pixels.stretch import no_stretch
from ssl_lens.representation.export import FrozenBackbone
from ssl_lens.representation.pooling import extract, map_statistics, preprocessed, ring_statistics, whitened


class TwoStages(Backbone):
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
    return FrozenBackbone(Preprocess(None, 1, no_stretch(1), mean=[5.0], std=[2.0], sky=[5.0]), TwoStages())


IMAGES = np.random.default_rng(0).normal(5, 2, (7, 1, 8, 8)).astype(np.float32)


def test_map_statistics_by_numpy():
    maps = np.random.default_rng(0).normal(size=(4, 3, 5, 6))
    expected = np.concatenate([maps.mean((2, 3)), maps.max((2, 3)), maps.std((2, 3))], axis=1)
    np.testing.assert_allclose(map_statistics(torch.from_numpy(maps)), expected, rtol=1e-12)


def test_statistics_of_a_single_pixel_map_are_finite():
    assert map_statistics(torch.full((1, 2, 1, 1), 3.0)).tolist() == [[3, 3, 3, 3, 0, 0]]


def test_poolings_are_mean_and_statistics_of_the_maps(frozen):
    stages = [stage.numpy() for stage in frozen.stages(torch.from_numpy(IMAGES))]
    statistics = [np.concatenate([m.mean((2, 3)), m.max((2, 3)), m.std((2, 3))], axis=1) for m in stages]
    expected = {"view": stages[1].mean((2, 3)), "stats": statistics[1], "stages": np.concatenate(statistics, axis=1)}
    for pooling, features in expected.items():
        np.testing.assert_allclose(extract(frozen, IMAGES, pooling=pooling), features, atol=1e-6)


def test_rings_measure_a_radial_profile():
    """A map that is its own radius r; on 24 px the weights fall linearly within 2 px of the middles c = 1, 3, ... 11.

    The integral of r 2 pi r w(r) over that of 2 pi r w(r) is c + 2 / (3 c), and 20 / 13 where w is 1 inside c = 1.
    """
    y, x = torch.meshgrid(torch.arange(24) - 11.5, torch.arange(24) - 11.5, indexing="ij")
    radius = torch.hypot(x, y)[None, None]
    mean, std = ring_statistics(radius).view(2, 6)
    np.testing.assert_allclose(mean, [20 / 13, *(c + 2 / (3 * c) for c in (3, 5, 7, 9, 11))], atol=0.06)
    assert (std < 1).all()


def test_rings_of_a_constant_map_have_no_scatter():
    per_channel = ring_statistics(torch.full((1, 2, 7, 9), 3.0)).tolist()
    assert per_channel == [pytest.approx([3, 3, 3, 0, 0, 0] * 2, abs=1e-3)]


def test_rings_ignore_turns_and_flips_but_not_the_distance_from_the_centre():
    maps = torch.randn(2, 3, 13, 13, generator=torch.Generator().manual_seed(0))
    rings = ring_statistics(maps)
    assert rings.shape == (2, 2 * 6 * 3)
    for moved in (maps.rot90(1, (2, 3)), maps.rot90(2, (2, 3)), maps.flip(3)):
        np.testing.assert_allclose(ring_statistics(moved), rings, atol=1e-5)
    assert (ring_statistics(maps.roll(3, dims=3)) - rings).abs().max() > 0.1


@pytest.mark.parametrize(("side", "rings"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (12, 6), (40, 6)])
def test_small_maps_have_fewer_rings(side, rings):
    features = ring_statistics(torch.randn(1, 1, side, side))
    assert features.shape == (1, 2 * rings)
    assert features.isfinite().all()


def test_order_and_values_do_not_depend_on_the_batch_size(frozen):
    whole = extract(frozen, IMAGES, pooling="stages")
    assert whole.dtype == np.float32
    assert whole.shape == (7, 15)
    np.testing.assert_allclose(extract(frozen, IMAGES, pooling="stages", batch_size=3), whole, atol=1e-6)
    np.testing.assert_array_equal(extract(frozen, IMAGES, pooling="stages"), whole)


def test_read_only_memory_maps_are_read(frozen, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(extract(frozen, mapped, pooling="view"), extract(frozen, IMAGES, pooling="view"))
    np.testing.assert_allclose(preprocessed(frozen.preprocess, mapped, batch_size=4), (IMAGES - 5) / 2, atol=1e-6)


def test_whitened_features_are_uncorrelated_and_of_unit_variance_on_the_training_part():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    ours, test = whitened(train, train[:5] + 1, 4)
    np.testing.assert_allclose(np.cov(ours, rowvar=False), np.eye(4), atol=1e-5)
    scale = train.std(axis=0)
    values, vectors = np.linalg.eigh(np.corrcoef(train, rowvar=False))
    expected = (
        ((train[:5] + 1 - train.mean(axis=0)) / scale) @ vectors[:, ::-1][:, :4] / np.sqrt(values[::-1][:4] * 500 / 499)
    )
    np.testing.assert_allclose(np.abs(test), np.abs(expected), atol=1e-4)


def test_whitening_gives_no_more_components_than_images():
    assert whitened(np.eye(5), np.ones((2, 5)), 64)[1].shape == (2, 5)
