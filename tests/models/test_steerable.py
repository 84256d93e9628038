"""The steerable stem: exact under its group, never stale, equal to e2cnn's convolution."""

import copy
import pickle

import pytest
import torch
from e2cnn import gspaces
from e2cnn import nn as e2nn
from e2cnn.kernels.irreps_basis import R2FlipsContinuousRotationsSolution

from ssl_lens.errors import InputError
from ssl_lens.models.steerable import GROUPS, SteerableConv2d, SteerableStem

TOLERANCE = 1e-5  # relative, float32


def stem(group: str = "C4", downsample: int = 1, depth: int = 2) -> SteerableStem:
    torch.manual_seed(0)
    return SteerableStem(1, group, fields=2, depth=depth, kernel_size=5, downsample=downsample)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("downsample", [1, 2])
@pytest.mark.parametrize("group", GROUPS)
@torch.no_grad()
def test_turned_images_give_turned_maps(group, downsample, training):
    network = stem(group, downsample)
    network(torch.randn(4, 1, 32, 32))
    network.train(training)
    for size in (64, 65, 96, 150):
        images = torch.randn(1, 1, size, size)
        maps = network(images)
        assert maps.shape == (1, 2, *network.map_size(size, size))
        for turns in (1, 2, 3):
            assert _relative(network(images.rot90(turns, (2, 3))), maps.rot90(turns, (2, 3))) <= TOLERANCE
        mirrored = _relative(network(images.flip(3)), maps.flip(3))
        assert mirrored <= TOLERANCE if group.startswith("D") else mirrored > 0.1


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(("group", "least", "most"), [("C4", 0.1, 1.0), ("C8", 0.0, 0.04), ("D8", 0.0, 0.04)])
@torch.no_grad()
def test_only_eight_rotations_see_an_eighth_turn(group, least, most):
    """A smooth elongated blob, drawn at 0° and at 45°: the pooled response at its centre."""
    torch.manual_seed(1)
    network = SteerableStem(1, group, fields=8, depth=1, kernel_size=7).eval()
    y, x = torch.meshgrid(torch.arange(-10.0, 11), torch.arange(-10.0, 11), indexing="ij")

    def blob(angle: torch.Tensor) -> torch.Tensor:
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        return torch.exp(-((along / 4) ** 2) - (across / 2) ** 2)[None, None]

    straight, slanted = (network(blob(torch.tensor(angle)))[0, :, 10, 10] for angle in (0.0, torch.pi / 4))
    assert least <= ((slanted - straight).norm() / straight.norm()).item() <= most


@pytest.mark.parametrize(("group", "order"), [("C4", 4), ("C8", 8), ("D4", 8), ("D8", 16)])
@torch.no_grad()
def test_folded_stem_is_the_same_function(group, order):
    for downsample in (1, 2):
        network = stem(group, downsample)
        for layer in network.layers:
            layer.norm.weight.normal_()
            layer.norm.bias.normal_()
        network(torch.randn(8, 1, 24, 24) * 3 + 1)
        folded = network.eval().fold()
        assert folded.config()["group_order"] == order
        for size in (24, 25):
            images = torch.randn(2, 1, size, size)
            assert _relative(folded(images), network(images)) <= TOLERANCE


@torch.no_grad()
def test_filter_is_e2cnns_for_the_same_weights():
    space = gspaces.FlipRot2dOnR2(4)
    regular = space.regular_repr
    ours = SteerableConv2d(space, regular, 2, regular, 3, kernel_size=3)
    theirs = e2nn.R2Conv(e2nn.FieldType(space, [regular] * 2), e2nn.FieldType(space, [regular] * 3), 3, bias=False)
    theirs.weights.copy_(ours.weights)
    torch.testing.assert_close(ours.filter(), theirs.expand_parameters()[0], atol=1e-6, rtol=0)


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


def test_batch_norm_is_shared_by_the_elements_of_a_field():
    assert [tuple(layer.norm.weight.shape) for layer in stem("D8").layers] == [(2,), (2,)]


def test_bfloat16_autocast_expands_the_filter_in_float32():
    network = stem("C8")
    with torch.autocast("cpu", torch.bfloat16):
        assert network.layers[1].conv.filter().dtype == torch.float32
        assert network(torch.randn(1, 1, 16, 16)).isfinite().all()


def test_e2cnn_is_patched_for_numpy_2():
    """Dihedral bases hash and evaluate; unpatched, e2cnn 0.2.3 calls tostring and array(copy=False)."""
    for group in ("D4", "D8"):
        assert stem(group).layers[0].conv.basis.isfinite().all()
    space = gspaces.FlipRot2dOnR2(-1, maximum_frequency=2)
    basis = R2FlipsContinuousRotationsSolution(space.fibergroup, "irrep_1,1", "irrep_1,1")
    again = R2FlipsContinuousRotationsSolution(space.fibergroup, "irrep_1,1", "irrep_1,1")
    assert hash(basis) == hash(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"group": "C6"}, "group='C6' .* use one of C4, C8, D4, D8"),
        ({"kernel_size": 4}, "kernel_size=4 .* odd number"),
        ({"depth": 0}, "depth=0 .* 1 or more"),
        ({"downsample": 3}, "downsample=3 .* use 1 or 2"),
    ],
)
def test_impossible_stems_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SteerableStem(1, **arguments)
