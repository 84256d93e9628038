import pytest
import torch
from torch import nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network


class PatchBackbone(MapBackbone):
    """One patch embedding; counts its passes, and how many sizes come together."""

    def __init__(self, in_channels: int = 1, embed_dim: int = 6, patch_size: int = 8) -> None:
        super().__init__(in_channels, embed_dim, patch_size)
        self._config = {"in_channels": in_channels, "embed_dim": embed_dim, "patch_size": patch_size}
        self.projection = nn.Conv2d(in_channels, embed_dim, patch_size, patch_size)
        self.batches: list[tuple[int, ...]] = []
        self.together: list[int] = []

    def each(self, batches):
        self.together.append(len(batches))
        return super().each(batches)

    def stages(self, images):
        self.batches.append(tuple(images.shape))
        return [self.projection(images)]


def network(region: bool = True, batch_norm: bool = False) -> Network:
    torch.manual_seed(0)

    def head() -> ProjectionHead:
        return ProjectionHead(6, 10, hidden_dim=8, bottleneck_dim=5, batch_norm=batch_norm)

    return Network(PatchBackbone(), head(), head() if region else None).double()


def crops(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 1, size, size, dtype=torch.float64, generator=generator) for n, size in shapes]


def test_output_is_each_view_by_itself():
    net, views = network(), crops((2, 32), (3, 16), (1, 24))
    out = net(views)
    assert out.view_logits.shape == (6, 3, 10)
    assert [tuple(r.shape) for r in out.regions] == [(2, 3, 16, 6), (3, 3, 4, 6), (1, 3, 9, 6)]

    singles = [view for crop in views for view in crop]
    regions, region_logits = ([view for part in parts for view in part] for parts in (out.regions, out.region_logits))
    for v, view in enumerate(singles):
        features = net.backbone(view)
        torch.testing.assert_close(out.view_features[v], features.view, rtol=0, atol=1e-14)
        torch.testing.assert_close(out.view_logits[v], net.view_head(features.view), rtol=0, atol=1e-14)
        torch.testing.assert_close(regions[v], features.regions, rtol=0, atol=1e-14)
        torch.testing.assert_close(region_logits[v], net.region_head(features.regions), rtol=0, atol=1e-14)


def test_one_backbone_pass_per_resolution():
    net = network()
    net(crops((2, 32), (4, 16)))
    assert net.backbone.batches == [(6, 1, 32, 32), (12, 1, 16, 16)]
    assert net.backbone.together == [2]  # so that a steerable network expands its filters once


def test_head_batch_norm_sees_all_resolutions_at_once():
    net, views = network(batch_norm=True), crops((2, 32), (3, 16))
    out = net(views)
    rows = torch.cat([net.backbone(crop.flatten(0, 1)).view for crop in views])
    torch.testing.assert_close(out.view_logits.flatten(0, 1), net.view_head(rows), rtol=0, atol=1e-14)


@pytest.mark.parametrize("sizes", [[(2, 32)], [(2, 32), (3, 16)]])
def test_without_region_head(sizes):
    out = network(region=False)(crops(*sizes))
    assert out.view_logits.shape == (sum(n for n, _ in sizes), 3, 10)
    assert out.region_logits is None
    assert out.regions is None


def test_heads_share_not_weights():
    net = network()
    assert not torch.equal(net.view_head.mlp[0].weight, net.region_head.mlp[0].weight)
    net(crops((2, 32))).view_logits.sum().backward()
    assert net.region_head.mlp[0].weight.grad is None
