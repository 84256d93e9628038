"""Stems: exact under their group, equal to their folded form, and a backbone behind one."""

import copy
import pickle

import pytest
import torch

from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.steerable.convolution import SteerableConv2d
from ssl_lens.backbones.steerable.groups import ORDERS
from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.errors import InputError

TOLERANCE = 1e-5  # relative, float32


def stem(group: str = "C4", downsample: int = 1, depth: int = 2, pooling: str = "max") -> Stem:
    torch.manual_seed(0)
    return Stem(1, StemOptions(group, fields=2, depth=depth, kernel_size=5, downsample=downsample, pooling=pooling))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(
    ("training", "pooling"), [(True, "max"), (False, "max"), (False, "mean"), (False, "lens_frame")]
)
@pytest.mark.parametrize("downsample", [1, 2])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_turned_images_give_turned_maps(group, downsample, training, pooling):
    network = stem(group, downsample, pooling=pooling)
    network(torch.randn(4, 1, 32, 32))
    network.train(training)
    for size in (64, 65, 96, 150):
        images = torch.randn(1, 1, size, size)
        maps = network(images)
        assert maps.shape == (1, 6 if pooling == "lens_frame" else 2, *network.map_size(size, size))
        for turns in (1, 2, 3):
            assert relative(network(images.rot90(turns, (2, 3))), maps.rot90(turns, (2, 3))) <= TOLERANCE
        mirrored = relative(network(images.flip(3)), maps.flip(3))
        assert mirrored <= TOLERANCE if group.startswith("D") else mirrored > 0.02


@pytest.mark.parametrize(("group", "least", "most"), [("C4", 0.1, 1.0), ("C8", 0.0, 0.04), ("D8", 0.0, 0.04)])
@torch.no_grad()
def test_only_eight_rotations_see_an_eighth_turn(group, least, most):
    """A smooth elongated blob, drawn at 0° and at 45°: the pooled response at its centre."""
    torch.manual_seed(1)
    network = Stem(1, StemOptions(group, fields=8, depth=1, kernel_size=7)).eval()
    y, x = torch.meshgrid(torch.arange(-10.0, 11), torch.arange(-10.0, 11), indexing="ij")

    def blob(angle: torch.Tensor) -> torch.Tensor:
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        return torch.exp(-((along / 4) ** 2) - (across / 2) ** 2)[None, None]

    straight, slanted = (network(blob(torch.tensor(angle)))[0, :, 10, 10] for angle in (0.0, torch.pi / 4))
    assert least <= ((slanted - straight).norm() / straight.norm()).item() <= most


@pytest.mark.parametrize("pooling", ["max", "mean", "lens_frame"])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_a_folded_stem_is_the_same_function(group, pooling):
    for downsample in (1, 2):
        network = stem(group, downsample, pooling=pooling)
        for layer in network.layers:
            layer.norm.weight.normal_()
            layer.norm.bias.normal_()
        network(torch.randn(8, 1, 24, 24) * 3 + 1)
        folded = network.eval().fold()
        assert folded.config() == network.config() | {"folded": True}
        assert {type(layer) for layer in folded.layers} == {torch.nn.Conv2d}
        for size in (24, 25):
            images = torch.randn(2, 1, size, size)
            assert relative(folded(images), network(images)) <= TOLERANCE


@pytest.mark.parametrize(("pooling", "expected"), [("max", ([5, 0], [0, 3])), ("mean", ([8 / 3, 0], [0, 2]))])
@torch.no_grad()
def test_group_pooling_takes_the_maximum_or_the_mean_of_a_fields_elements_behind_the_relu(pooling, expected):
    stem = Stem(1, StemOptions("C4", fields=2, depth=1, kernel_size=3, pooling=pooling), folded=True)
    stem.layers[0].weight.zero_()[:, 0, 1, 1] = torch.tensor([1.0, 5, 2, 8 / 3, -1, -3, -2, -2])
    if pooling == "max":
        stem.layers[0].weight[3, 0, 1, 1] = -9
    stem.layers[0].bias.zero_()
    assert stem(torch.ones(1, 1, 1, 1)).flatten().tolist() == pytest.approx(expected[0])
    assert stem(-torch.ones(1, 1, 1, 1)).flatten().tolist() == pytest.approx(
        expected[1] if pooling == "mean" else [9, 3]
    )


def test_a_folded_stem_is_rebuilt_from_its_configuration():
    stem = Stem(2, StemOptions("D4", fields=3, depth=2, kernel_size=5, downsample=2), folded=True)
    again = Stem.from_config(stem.config())
    again.load_state_dict(stem.state_dict(), strict=True)
    images = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(again(images), stem(images), atol=0, rtol=0)
    assert stem.fold() is stem


@torch.no_grad()
def test_changed_weights_are_seen_at_once_in_evaluation_mode():
    network = stem().eval()
    images = torch.randn(1, 1, 9, 9)
    before = network(images)
    for layer in network.layers:
        layer.conv.weights.mul_(2)
    assert (network(images) - before).abs().max() > 0.1


@torch.no_grad()
def test_copies_and_pickles_after_a_forward_pass_in_either_mode():
    network = stem("D4")
    images = torch.randn(1, 1, 9, 9)
    for training in (True, False):
        network.train(training)(images)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            torch.testing.assert_close(other.eval()(images), network.eval()(images), atol=0, rtol=0)


def test_filters_are_expanded_once_for_all_sizes_and_kept_for_none_after(monkeypatch):
    torch.manual_seed(0)
    network = StemmedBackbone(stem(), ResNet(2, ResNetOptions(width=2, depths=(1,)))).double()
    batches = [torch.randn(3, 1, size, size, dtype=torch.float64) for size in (16, 9)]
    apart, expand, expanded = copy.deepcopy(network), SteerableConv2d.expand, []
    monkeypatch.setattr(SteerableConv2d, "expand", lambda self: expanded.append(self) or expand(self))
    sum(features.view.square().sum() for features in network.each(batches)).backward()
    assert len(expanded) == len(set(map(id, expanded))) == 2
    sum(apart(images).view.square().sum() for images in batches).backward()
    assert len(expanded) == 2 + 4
    for ours, theirs in zip(network.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)
    with pytest.raises(InputError):
        network.each([batches[0], torch.zeros(1, 2, 9, 9, dtype=torch.float64)])
    assert [layer.conv.expanded for layer in network.stem.layers] == [None, None]


def test_folding_copies_the_backbone_and_leaves_it_as_it_was():
    backbone = StemmedBackbone(
        Stem(1, StemOptions(fields=2), folded=True), ResNet(2, ResNetOptions(width=2, depths=(1,)))
    ).train()
    folded = backbone.fold()
    assert backbone.training
    assert not folded.training
    assert folded.backbone is not backbone.backbone
    assert folded.stem is not backbone.stem


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": "C6"}, "group='C6' should be 'C4', 'C8', 'D4' or 'D8'"),
        ({"kernel_size": 4}, "kernel_size=4 .* odd number"),
        ({"depth": 0}, "depth=0 .* 1 or more"),
        ({"downsample": 3}, "downsample=3 should be 1 or 2"),
        ({"pooling": "sum"}, "pooling='sum' should be 'max', 'mean' or 'lens_frame'"),
    ],
)
@pytest.mark.parametrize("folded", [False, True])
def test_impossible_stems_are_refused(arguments, message, folded):
    with pytest.raises(InputError, match=message):
        Stem(1, StemOptions(**arguments), folded=folded)


def test_channels_that_do_not_meet_are_refused():
    with pytest.raises(InputError, match="stem gives 2 channels but the backbone takes 1; .* in_channels=2"):
        StemmedBackbone(Stem(1, StemOptions(fields=2), folded=True), ResNet(1, ResNetOptions(width=2, depths=(1,))))


def test_a_size_off_the_patch_is_refused_with_image_and_map():
    backbone = Swin(2, SwinOptions(4, depths=(1, 1), num_heads=(1, 1)))
    stemmed = StemmedBackbone(Stem(1, StemOptions(fields=2, downsample=2), folded=True), backbone)
    with pytest.raises(InputError, match="behind the stem a 65x65 px image is a map: image size 33x33 px"):
        stemmed(torch.zeros(1, 1, 65, 65))
    assert stemmed.map_size(64, 64) == (4, 4)
