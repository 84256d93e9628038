"""The ResNet is timm's ResNet-18, 34 and 50 at full size, and keeps regions on small images."""

import pytest
import timm
import torch

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.errors import InputError

PUBLISHED = {
    "resnet18": {"stem_stride": 4},
    "resnet34": {"stem_stride": 4, "depths": (3, 4, 6, 3)},
    "resnet50": {"stem_stride": 4, "depths": (3, 4, 6, 3), "block": "bottleneck"},
}


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_it_equals_timms_on_the_same_weights(name):
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0).eval()
    ours = ResNet(3, ResNetOptions(**PUBLISHED[name])).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    for size in ((64, 64), (97, 64)):
        images = torch.randn(2, 3, *size)
        torch.testing.assert_close(ours(images).view, theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "count"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_it_has_the_published_parameters(name, count):
    with torch.device("meta"):
        network = ResNet(3, ResNetOptions(**PUBLISHED[name]))
        parameters = [*network.parameters(), *network.head(1000).parameters()]
    assert sum(p.numel() for p in parameters) == count


def test_bottlenecks_quadruple_the_width_of_the_maps():
    network = ResNet(1, ResNetOptions(width=2, depths=(1, 2), block="bottleneck"))
    assert network.embed_dim == 16
    assert [stage.shape[1:] for stage in network.stages(torch.zeros(1, 1, 8, 8))] == [(8, 8, 8), (16, 4, 4)]
    assert ResNet.from_config(network.config()).state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("stem_stride", "depths", "size", "side"),
    [(1, (1, 1, 1, 1), 64, 8), (1, (1, 1, 1, 1), 65, 9), (2, (1, 1, 1), 64, 8), (4, (1, 1), 33, 5), (1, (1,), 7, 7)],
)
def test_the_last_map_is_as_large_as_announced(stem_stride, depths, size, side):
    network = ResNet(1, ResNetOptions(width=2, depths=depths, stem_stride=stem_stride))
    assert network.map_size(size, size) == (side, side)
    assert network(torch.zeros(1, 1, size, size)).regions.shape == (1, side**2, 2 * 2 ** (len(depths) - 1))


def test_a_stage_may_keep_the_map():
    network = ResNet(1, ResNetOptions(width=2, depths=(1, 1, 1), strides=(1, 2, 1), stem_stride=2))
    assert [stage.shape[1:] for stage in network.stages(torch.zeros(1, 1, 52, 52))] == [
        (2, 26, 26),
        (4, 13, 13),
        (8, 13, 13),
    ]
    assert network.map_size(52, 52) == (13, 13)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem_stride": 3}, "stem_stride=3 should be 1, 2 or 4"),
        ({"block": "wide"}, "block='wide' should be 'basic' or 'bottleneck'"),
        ({"depths": (1, 0)}, "depths=\\[1, 0\\] should be a list, each value an integer, 1 or more"),
        ({"depths": (1, 1), "strides": (1, 3)}, "strides=\\[1, 3\\] should be a list, each value 1 or 2"),
        ({"depths": (1, 1), "strides": (1,)}, "strides=\\[1\\] with depths=\\[1, 1\\]"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ResNet(1, ResNetOptions(**arguments))
