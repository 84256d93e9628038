"""Richness of features in numbers known in closed form."""

import pytest
import torch

from ssl_lens.engine.features import FeatureWindow, feature_statistics


def test_rankme_counts_equal_directions() -> None:
    orthogonal = torch.linalg.qr(torch.randn(64, 5, generator=torch.Generator().manual_seed(0)))[0]
    padded = torch.cat([orthogonal, torch.zeros(64, 11)], dim=1)
    assert feature_statistics(padded)["rankme"] == pytest.approx(5, rel=1e-3)


def test_feature_std_is_one_on_the_whole_sphere_and_zero_when_collapsed() -> None:
    features = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert feature_statistics(features)["feature_std"] == pytest.approx(1, abs=0.02)
    assert feature_statistics(torch.ones(10, 16))["feature_std"] == pytest.approx(0, abs=1e-7)


def test_the_window_keeps_the_newest() -> None:
    window = FeatureWindow(capacity=6)
    for i in range(5):
        window.add(torch.full((2, 2, 3), float(i)))
    assert window.all()[:, 0].tolist() == [3, 3, 4, 4, 4, 4]
