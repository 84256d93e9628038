"""The equivariant CvT of the lens literature: its stem is e2cnn's, its parameters are the published ones."""

import e2cnn.nn as e2nn
import pytest
import torch
from e2cnn import gspaces

from ssl_lens.backbones.eqcvt import EqCvT, EqCvTOptions
from ssl_lens.backbones.steerable.groups import ORDERS
from ssl_lens.errors import InputError


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def warmed_up(group: str, in_channels: int = 1) -> EqCvT:
    torch.manual_seed(0)
    network = EqCvT(in_channels, EqCvTOptions(group))
    network(torch.randn(4, in_channels, 32, 32) * 2 + 1)
    return network.eval()


@pytest.mark.parametrize("group", ORDERS)
def test_it_has_the_published_parameters_whatever_the_group(group):
    network = EqCvT(1, EqCvTOptions(group))
    assert (count(network.conv.conv), count(network.conv.norm)) == (180, 20)
    assert [count(part) for part in network.stage] == [2_912, 64, 29_632, 29_632]
    assert count(network) + count(network.head(2)) == 64_810


@pytest.mark.parametrize("size", [33, 40])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_stem_is_e2cnns_layer_by_layer(group, size):
    network = warmed_up(group)
    network.conv.norm.weight.normal_()
    network.conv.norm.bias.normal_()
    rotations = int(group[1:])
    space = gspaces.Rot2dOnR2(rotations) if group[0] == "C" else gspaces.FlipRot2dOnR2(rotations)
    scalar = e2nn.FieldType(space, [space.trivial_repr])
    regular = e2nn.FieldType(space, [space.regular_repr] * 10)
    conv, norm = e2nn.R2Conv(scalar, regular, 7, padding=1, bias=False), e2nn.InnerBatchNorm(regular)
    conv.weights.copy_(network.conv.conv.weights)
    (theirs,) = (module for module in norm.children() if isinstance(module, torch.nn.BatchNorm3d))
    theirs.load_state_dict(network.conv.norm.state_dict())
    theirs.eval()
    layers = (
        e2nn.MaskModule(scalar, size, margin=1),
        conv,
        norm,
        e2nn.ReLU(regular),
        e2nn.PointwiseAvgPoolAntialiased(regular, sigma=0.66, stride=1),
        e2nn.GroupPooling(regular),
    )
    images = torch.randn(2, 1, size, size)
    x = e2nn.GeometricTensor(images, scalar)
    for layer in layers:
        x = layer.eval()(x)
    torch.testing.assert_close(network.stem(images), x.tensor, atol=2e-5, rtol=0)


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_stem_turns_with_the_image_but_the_network_is_not_invariant(group):
    network = warmed_up(group)
    for size in (64, 65):
        images = torch.randn(2, 1, size, size)
        turned = images.rot90(1, (2, 3))
        assert relative(network.stem(turned), network.stem(images).rot90(1, (2, 3))) <= 1e-5
        assert relative(network(turned).view, network(images).view) > 1e-3
        if group[0] == "D":
            assert relative(network.stem(images.flip(3)), network.stem(images).flip(3)) <= 1e-5


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_folded_network_is_the_same_function(group):
    network = warmed_up(group, in_channels=3)
    folded = network.fold()
    assert type(folded.conv) is torch.nn.Conv2d
    assert folded.config() == {"in_channels": 3, "group": group, "pooling": "max", "folded": True}
    for size in ((32, 32), (33, 20), (5, 5)):
        images = torch.randn(2, 3, *size)
        assert relative(folded(images).regions, network(images).regions) <= 1e-6
        assert network.stages(images)[-1].shape[2:] == network.map_size(*size)


@torch.no_grad()
def test_changed_weights_are_seen_at_once_in_evaluation_mode():
    network, images = warmed_up("C8"), torch.randn(1, 1, 16, 16)
    before = network.stem(images)
    network.conv.conv.weights.neg_()
    assert relative(network.stem(images), before) > 0.1


def test_an_image_that_the_first_convolution_uses_up_is_refused():
    with pytest.raises(InputError, match="image size 4x9 px leaves nothing .* use 5 px or more"):
        EqCvT(1, folded=True)(torch.zeros(1, 1, 4, 9))
