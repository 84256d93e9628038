"""The fully steerable network: blind to quarter turns at any size, equal to its folded form."""

import subprocess
import sys

import pytest
import torch

from ssl_lens.backbones.steerable.groups import ORDERS
from ssl_lens.backbones.steerable_cnn import SteerableCNN, SteerableCNNOptions
from ssl_lens.errors import InputError

TOLERANCE = 1e-5  # relative to the largest feature, float32
NARROW = (2, 2, 3, 3, 4, 6)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def narrow(group: str, in_channels: int = 1) -> SteerableCNN:
    """A narrow one with batch-norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    network = SteerableCNN(in_channels, SteerableCNNOptions(group, NARROW))
    network(torch.randn(4, in_channels, 32, 32) * 2 + 1)
    return network.eval()


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(("group", "parameters"), [("C4", 82_704), ("C8", 165_072), ("D4", 165_072), ("D8", 329_808)])
def test_parameters(group, parameters):
    network = SteerableCNN(1, SteerableCNNOptions(group))
    assert count(network) == parameters
    assert count(network.head(2)) == 2_546
    assert network.embed_dim == 48


@pytest.mark.parametrize("size", [(64, 64), (65, 65), (96, 96), (150, 150), (64, 91)])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_view_does_not_see_quarter_turns_and_flips_of_the_group(group, size):
    network = narrow(group)
    images = torch.randn(2, 1, *size)
    features = network(images)
    assert relative(network(images.rot90(1, (2, 3))).view, features.view) <= TOLERANCE
    mirrored = relative(network(images.flip(3)).view, features.view)
    assert mirrored <= TOLERANCE if group[0] == "D" else mirrored > 1e-4
    for turned, plain in zip(network.stages(images.rot90(1, (2, 3))), network.stages(images), strict=True):
        assert relative(turned, plain.rot90(1, (2, 3))) <= TOLERANCE


@pytest.mark.parametrize("pooling", ["mean", "lens_frame"])
@torch.no_grad()
def test_other_poolings_do_not_see_quarter_turns_either(pooling):
    network = SteerableCNN(1, SteerableCNNOptions("C8", NARROW, pooling)).eval()
    images = torch.randn(2, 1, 65, 65)
    view = network(images).view
    assert view.shape == (2, network.embed_dim) == (2, 6 * (3 if pooling == "lens_frame" else 1))
    assert relative(network(images.rot90(1, (2, 3))).view, view) <= TOLERANCE
    assert relative(network.fold()(images).view, view) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_view_of_the_published_width_does_not_see_quarter_turns_either(group):
    torch.manual_seed(0)
    network = SteerableCNN(1, SteerableCNNOptions(group))
    network(torch.randn(4, 1, 32, 32))
    for size in (64, 65, 96, 150):
        images = torch.randn(1, 1, size, size)
        expected = network.eval()(images).view
        for other in (images.rot90(1, (2, 3)), images.flip(2)) if group[0] == "D" else (images.rot90(1, (2, 3)),):
            assert relative(network(other).view, expected) <= TOLERANCE


@torch.no_grad()
def test_eight_rotations_change_less_under_an_eighth_turn_than_four():
    """Plane waves of 8 px and longer, drawn at 0° and at 45°."""
    y, x = torch.meshgrid(*[torch.arange(64) - 31.5] * 2, indexing="ij")
    direction, length, phase = torch.rand(3, 4, 12, 1, 1, generator=torch.Generator().manual_seed(0))

    def drawn(turn: float) -> torch.Tensor:
        angle = torch.tensor(turn) + 2 * torch.pi * direction
        along = x * angle.cos() + y * angle.sin()
        return (2 * torch.pi * (along / (8 + 16 * length) + phase)).sin().sum(1, keepdim=True) / 3

    def change(group: str) -> float:
        torch.manual_seed(0)
        network = SteerableCNN(1, SteerableCNNOptions(group, (4, 4, 4, 4, 8, 16)))
        network(drawn(0.0))
        straight, slanted = (network.eval()(drawn(turn)).view for turn in (0.0, torch.pi / 4))
        return ((slanted - straight).norm() / straight.norm()).item()

    assert change("C8") < change("C4") / 2


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_folded_network_is_the_same_function_in_plain_convolutions(group):
    network = narrow(group, in_channels=3)
    folded = network.fold()
    assert folded.config() == network.config() | {"folded": True}
    assert folded.fold() is folded
    for size in ((32, 32), (33, 20)):
        images = torch.randn(2, 3, *size)
        for ours, theirs in zip(folded.stages(images), network.stages(images), strict=True):
            assert relative(ours, theirs) <= 2e-6


@torch.no_grad()
def test_changed_weights_are_seen_at_once_in_evaluation_mode():
    network, images = narrow("C4"), torch.randn(1, 1, 16, 16)
    before = network(images).view
    for layer in network.layers:
        layer.conv.weights.lerp_(torch.randn_like(layer.conv.weights), 0.5)
    assert relative(network(images).view, before) > 0.1


def test_no_folded_network_needs_e2cnn():
    code = (
        "import sys\n"
        "from ssl_lens.backbones.eqcvt import EqCvT\n"
        "from ssl_lens.backbones.eqcvt_invariant import EqCvTInvariant\n"
        "from ssl_lens.backbones.steerable_cnn import SteerableCNN\n"
        "from ssl_lens.backbones.steerable.stem import Stem\n"
        "Stem(1, folded=True), SteerableCNN(1, folded=True), EqCvT(1, folded=True), EqCvTInvariant(1, folded=True)\n"
        "assert 'e2cnn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_impossible_networks_and_images_are_refused():
    with pytest.raises(InputError, match="group='C5' should be 'C4', 'C8', 'D4' or 'D8'"):
        SteerableCNN(1, SteerableCNNOptions("C5"))
    with pytest.raises(InputError, match=r"fields=\[\] .* one block or more"):
        SteerableCNN(1, SteerableCNNOptions(fields=()))
    with pytest.raises(InputError, match="image size 0x5 px is empty"):
        SteerableCNN(1, folded=True).map_size(0, 5)
