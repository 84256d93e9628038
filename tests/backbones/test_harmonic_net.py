"""The harmonic network: filters after the authors', responses that turn with the image."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import formula_blobs, formula_image, formula_weights

from ssl_lens.backbones.harmonic_net import HarmonicConv2d, HarmonicNet, HarmonicNetOptions
from ssl_lens.errors import InputError

# Made by a transcription of a PyTorch port of danielewworrall/harmonicConvolutions (filters, cross-stream convolution),
# in float64 and with basis filters of norm 1; no phases for m = 0 with complex input, whose sine the authors leave out.
FIXTURE = Path(__file__).parent / "fixtures" / "harmonic_net.npz"


def blobs(size: int, angle: float) -> torch.Tensor:
    return formula_blobs(4, 5, size, angle)


@torch.no_grad()
def warmed_up(network: HarmonicNet) -> HarmonicNet:
    network.train()(blobs(32, 0.3))
    return network.eval()


def change(network: HarmonicNet, images: torch.Tensor, turned: torch.Tensor) -> float:
    before, after = network(images).view, network(turned).view
    return ((after - before).norm(dim=1) / before.norm(dim=1)).max().item()


def test_it_has_as_many_parameters_as_the_authors_network():
    network = HarmonicNet(1)
    count = sum(p.numel() for module in (network, network.head(2)) for p in module.parameters())
    assert count == 31_854  # theirs for rotated MNIST: about 33 thousand


@pytest.mark.parametrize("real_input", [True, False])
@torch.no_grad()
def test_the_convolution_equals_the_authors(real_input):
    conv = HarmonicConv2d(2, 3, kernel_size=5, rings=3, real_input=real_input, phases=True).double()
    weights = formula_weights(conv)
    if not real_input:
        weights["phase"][0] = 0
    conv.load_state_dict(weights)
    expected = np.load(FIXTURE, allow_pickle=False)["real" if real_input else "complex"]
    np.testing.assert_allclose(conv(formula_image(2, 2 if real_input else 8, 7, 8)).numpy(), expected, atol=1e-9)


@torch.no_grad()
def test_a_quarter_turn_multiplies_a_stream_by_a_power_of_i():
    conv = HarmonicConv2d(1, 2, kernel_size=5, rings=4, real_input=True, phases=True)
    images = torch.randn(1, 1, 9, 12)
    real, imaginary = (conv(images).unflatten(1, (2, 2, 2))[:, 1].rot90(1, (3, 4))).unbind(1)
    turned = conv(images.rot90(1, (2, 3))).unflatten(1, (2, 2, 2))[:, 1]
    torch.testing.assert_close(turned, torch.stack([imaginary, -real], dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_quarter_turns_turn_every_map(training):
    torch.manual_seed(0)
    network = warmed_up(HarmonicNet(1)).train(training)
    for height, width in ((64, 64), (65, 65), (33, 50), (75, 75)):
        images = torch.randn(2, 1, height, width)
        maps, turned = network.stages(images), network.stages(images.rot90(1, (2, 3)))
        assert maps[-1].shape[2:] == network.map_size(height, width)
        for one, other in zip(maps, turned, strict=True):
            assert (other - one.rot90(1, (2, 3))).norm() <= 1e-5 * one.norm()
        assert change(network, images, images.rot90(1, (2, 3))) <= 1e-5


@pytest.mark.parametrize("size", [64, 65])
@torch.no_grad()
def test_an_eighth_of_a_turn_of_a_smooth_image_changes_the_view_by_a_few_percent_at_most(size):
    torch.manual_seed(0)
    network = warmed_up(HarmonicNet(1))
    assert change(network, blobs(size, 0.0), blobs(size, math.pi / 4)) <= 0.05
    assert change(network, blobs(size, 0.0), blobs(size, 0.0).roll(1, 0)) > 0.05  # other images are told apart


@torch.no_grad()
def test_bfloat16_autocast_expands_the_filters_in_float32():
    network = HarmonicNet(1, HarmonicNetOptions(widths=(2,), embed_dim=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert network.last.filter().dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"widths": ()}, r"widths=\[\] .* give the width of one block or more"),
        ({"rings": 0}, "rings=0 should be an integer, 1 or more"),
        ({"embed_dim": 7}, "embed_dim=7 .* even"),
        ({"kernel_size": 4}, "kernel_size=4 .* use 3, 5, 7"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        HarmonicNet(1, HarmonicNetOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="0x8 px is empty; use 1 px or more"):
        HarmonicNet(1).map_size(0, 8)
