"""What two views of the same images say without labels, in numbers known in closed form."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Encoder, Features
from ssl_lens.engine.sampled_views import Sampled, SampledViews, view_statistics


def on_circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_alignment_is_the_squared_distance_of_views_on_the_sphere() -> None:
    """60 degrees apart: a chord of 1; 90: of the square root of 2; whatever their lengths."""
    first, second = on_circle(0, 0, 90), on_circle(60, 90, 90)
    assert view_statistics(first, 3 * first, 0.2 * second)["alignment"] == pytest.approx((1 + 2 + 0) / 3)


def test_uniformity_is_that_of_all_pairs_of_images() -> None:
    """Three images at 120 degrees: squared distances of 3; and two alike of four at 0, 0, 180, 180."""
    equal = on_circle(0, 120, 240)
    assert view_statistics(equal, equal, equal)["uniformity"] == pytest.approx(-6)
    images = on_circle(0, 0, 180, 180)
    expected = math.log((2 + 4 * math.exp(-8)) / 6)
    assert view_statistics(images, images, images)["uniformity"] == pytest.approx(expected)


def test_rankme_is_that_of_the_images() -> None:
    images, views = torch.eye(8, dtype=torch.float64), torch.ones(8, 8, dtype=torch.float64)
    views[0] += 1
    assert view_statistics(images, views, views)["sample_rankme"] == pytest.approx(8, rel=1e-3)


def test_view_auc_is_how_often_the_own_view_is_the_nearer() -> None:
    """About the mean. Four images on the axes; the second views of the first two are exchanged, so that each of these
    four views has its own at 90 degrees: nearer than what is opposite, level with one, further than one."""
    first = on_circle(0, 90, 180, 270) + 5
    second = on_circle(90, 0, 180, 270) + 5
    assert view_statistics(first, first, first)["view_auc"] == pytest.approx(1)
    assert view_statistics(first, first, second)["view_auc"] == pytest.approx((0.5 + 1) / 2, abs=0.05)


def test_collapsed_features_tell_nothing() -> None:
    collapsed = torch.ones(6, 3, dtype=torch.float64)
    assert view_statistics(collapsed, collapsed, collapsed)["view_auc"] == 0.5


def test_both_sides_count() -> None:
    """Four images whose first views tell more than the second; against pairs counted one by one."""
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64)
    mean = (first + second).mean(0) / 2
    cosine = nn.functional.cosine_similarity((first - mean)[:, None], (second - mean)[None], dim=2)
    forth = [cosine[i, j] < cosine[i, i] for i in range(7) for j in range(7) if i != j]
    back = [cosine[j, i] < cosine[i, i] for i in range(7) for j in range(7) if i != j]
    assert sum(forth) != sum(back)
    expected = (sum(forth) + sum(back)).item() / 84
    assert view_statistics(first, first, second)["view_auc"] == pytest.approx(expected)


class Doubling(Encoder):
    """Twice its images; a dropout that would be seen if it were left in training mode."""

    def __init__(self) -> None:
        super().__init__(1, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Features:
        return Features(2 * self.dropout(images), images[:, None])


def test_a_backbone_is_measured_in_evaluation_mode_and_stays_as_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(3, 5, 4, generator=generator) for _ in range(2)]

    class Batches:
        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Iterator[Sampled]:
            return (Sampled(batch[0], batch[1:]) for batch in batches)

    backbone, monitor = Doubling().train(), SampledViews(Batches())
    expected = view_statistics(*torch.cat(batches, dim=1).double())
    assert monitor.measure(backbone) == pytest.approx(expected | {"sample_rankme": expected["sample_rankme"]})
    assert backbone.dropout.training
    assert monitor.trials == 10
