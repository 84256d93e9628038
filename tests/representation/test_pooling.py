import numpy as np
import pytest
import torch

from ssl_lens.backbones.layers.rings import ring_statistics
from ssl_lens.representation.pooling import map_statistics, pool_maps


def test_map_statistics_by_numpy():
    maps = np.random.default_rng(0).normal(size=(4, 3, 5, 6))
    expected = np.concatenate([maps.mean((2, 3)), maps.max((2, 3)), maps.std((2, 3))], axis=1)
    np.testing.assert_allclose(map_statistics(torch.from_numpy(maps)), expected, rtol=1e-12)


def test_statistics_of_a_single_pixel_map_are_finite():
    assert map_statistics(torch.full((1, 2, 1, 1), 3.0)).tolist() == [[3, 3, 3, 3, 0, 0]]


def test_poolings_choose_the_stages_and_the_statistics():
    generator = torch.Generator().manual_seed(0)
    stages = [torch.randn(3, 2, 8, 8, generator=generator), torch.randn(3, 4, 4, 4, generator=generator)]
    expected = {
        "stats": map_statistics(stages[1]),
        "stages": torch.cat([map_statistics(maps) for maps in stages], dim=1),
        "rings": ring_statistics(stages[1]),
        "stage_rings": torch.cat([ring_statistics(maps) for maps in stages], dim=1),
    }
    rings = expected["stage_rings"]
    expected["log_rings"] = torch.where(rings < 0, -(1 - 30 * rings).log(), (1 + 30 * rings).log())
    for pooling, features in expected.items():
        torch.testing.assert_close(pool_maps(stages, pooling), features, rtol=0, atol=1e-6 * (pooling == "log_rings"))


@pytest.mark.parametrize("pooling", ["stats", "stages", "rings", "stage_rings", "log_rings"])
@pytest.mark.parametrize("value", [0.0, 1e-3, 3.0])
@pytest.mark.parametrize("scatter", [0.0, 1e-30, 1e-6])
def test_gradients_are_finite_and_bounded_where_nothing_varies(pooling, value, scatter):
    """Fine-tuning turned NaN on such maps; the slope of a weighted standard deviation is at most 1."""
    noise = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    maps = (value + scatter * noise).requires_grad_()
    pool_maps([maps, maps], pooling).sum().backward()
    assert maps.grad.isfinite().all()
    assert maps.grad.abs().max() <= 2 * 6 * 2 * (30 if pooling == "log_rings" else 1)


def test_gradients_are_those_of_finite_differences():
    maps = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    for pooling in ("stats", "stage_rings", "log_rings"):
        assert torch.autograd.gradcheck(lambda m, pooling=pooling: pool_maps([m], pooling), maps)


@pytest.mark.parametrize("pooling", ["stats", "stage_rings"])
def test_statistics_of_half_precision_maps_are_float32_even_under_autocast(pooling):
    maps = (10 + torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))).bfloat16()
    expected = pool_maps([maps.float()], pooling)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (maps, maps.float()):
            torch.testing.assert_close(pool_maps([given], pooling), expected, rtol=0, atol=0)
