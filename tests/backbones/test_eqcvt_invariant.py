"""The invariant CvT: blind to its group from the image to the logits, within the published network's budget."""

import copy

import pytest
import torch
from torch import nn

from ssl_lens.backbones.eqcvt_invariant import EqCvTInvariant, EqCvTInvariantOptions
from ssl_lens.backbones.steerable.convolution import SteerableLayer
from ssl_lens.backbones.steerable.groups import ORDERS
from ssl_lens.errors import InputError

TOLERANCE = 1e-5


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@torch.no_grad()
def warmed_up(group: str, depth: int = 2, in_channels: int = 1) -> EqCvTInvariant:
    """With batch-norm statistics, scales and offsets that are not the initial ones."""
    torch.manual_seed(0)
    network = EqCvTInvariant(in_channels, EqCvTInvariantOptions(group, depth))
    for name, parameter in network.named_parameters():
        if "norm" in name or "bias" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
    network(torch.randn(4, in_channels, 32, 32) * 2 + 1)
    return network.eval()


@pytest.mark.parametrize(("group", "parameters"), [("C4", 56_378), ("C8", 63_898), ("D4", 63_898), ("D8", 63_946)])
def test_it_stays_within_the_budget_of_the_published_network(group, parameters):
    network = EqCvTInvariant(1, EqCvTInvariantOptions(group))
    assert count(network) + count(network.head(2)) == parameters <= 65_000


@pytest.mark.parametrize("size", [64, 65, 96, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_logits_do_not_see_quarter_turns_and_flips_of_the_group(group, size):
    network = warmed_up(group, depth=1)
    head = nn.Linear(network.embed_dim, 2)
    images = torch.randn(1, 1, size, size)
    logits, turned, mirrored = (head(network(x).view) for x in (images, images.rot90(1, (2, 3)), images.flip(3)))
    assert (turned - logits).abs().max() <= TOLERANCE
    change = (mirrored - logits).abs().max()
    assert change <= TOLERANCE if group[0] == "D" else change > 1e-4


@pytest.mark.parametrize("pooling", ["max", "mean", "lens_frame"])
@pytest.mark.parametrize("stages", [1, 2, 3])
@torch.no_grad()
def test_the_first_stages_are_those_of_the_whole_network(pooling, stages):
    networks = []
    for kept in (stages, 3):
        torch.manual_seed(0)
        networks.append(EqCvTInvariant(1, EqCvTInvariantOptions("C4", 1, pooling, kept)).eval())
    part, whole = networks
    images = torch.randn(2, 1, 24, 24)
    maps = part.stages(images)
    assert len(maps) == stages
    assert maps[-1].shape[1:] == (part.embed_dim, *part.map_size(24, 24))
    for ours, theirs in zip(maps, whole.stages(images), strict=False):
        assert torch.equal(ours, theirs)
    folded = part.fold()
    assert folded.embed_dim == part.embed_dim == (14, 16, 64)[stages - 1] * (3 if pooling == "lens_frame" else 1)
    assert relative(folded(images).view, part(images).view) <= 2e-6
    assert relative(part(images.rot90(1, (2, 3))).view, part(images).view) <= TOLERANCE


@torch.no_grad()
def test_every_map_turns_with_an_oblong_image():
    network, images = warmed_up("D4", depth=3), torch.randn(1, 1, 38, 51)
    maps = network.stages(images)
    assert maps[-1].shape[2:] == network.map_size(38, 51) == (10, 13)
    for turned, plain in zip(network.stages(images.rot90(1, (2, 3))), maps, strict=True):
        assert relative(turned, plain.rot90(1, (2, 3))) <= TOLERANCE


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_the_folded_network_is_the_same_function_in_plain_convolutions(group):
    network = warmed_up(group, depth=1, in_channels=3)
    folded = network.fold()
    assert folded.config() == {
        "in_channels": 3, "group": group, "depth": 1, "pooling": "max", "stages": 3, "folded": True
    }  # fmt: skip
    assert folded.fold() is folded
    for size in ((32, 32), (33, 20), (1, 1)):
        images = torch.randn(2, 3, *size)
        assert relative(folded(images).regions, network(images).regions) <= 2e-6


@torch.no_grad()
def test_attention_reaches_across_the_map():
    network, images = warmed_up("C4"), torch.zeros(1, 1, 64, 64)
    before = network.blocks[0].attn.forward(network.downsample(torch.randn(1, 64, 32, 32)))
    assert before.shape == (1, 64, 16, 16)
    plain = network.stages(images)[-1]
    images[..., 8:12, 30:34] = 5
    assert (network.stages(images)[-1] - plain)[..., 15, 8].abs().max() > 1e-6


@torch.no_grad()
def test_changed_weights_are_seen_at_once_in_evaluation_mode():
    network, images = warmed_up("C4"), torch.randn(1, 1, 16, 16)
    before = network(images).view
    for name, parameter in network.named_parameters():
        if name.endswith("weights"):
            parameter.lerp_(torch.randn_like(parameter), 0.1)
    assert relative(network(images).view, before) > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-3)])
def test_a_training_step_in_parts_has_the_gradients_of_the_plain_layers(monkeypatch, dtype, tolerance):
    """In float32 but for the few pixels whose largest orientation is decided by rounding."""
    torch.manual_seed(1)
    network = EqCvTInvariant(1, EqCvTInvariantOptions("C8", depth=1)).train().to(dtype)
    images, upstream = torch.randn(17, 1, 20, 20, dtype=dtype), torch.randn(17, network.embed_dim, dtype=dtype)
    whole_maps, views, gradients = [], [], []
    for layer in (network.lift, network.out):
        layer.register_forward_hook(lambda *_: whole_maps.append(0))
    for _ in range(2):
        views.append(network(images).view)
        found = torch.autograd.grad(views[-1], list(network.parameters()), upstream)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
        monkeypatch.setattr(SteerableLayer, "of_batch", lambda layer, x: None)
    assert len(whole_maps) == 2  # of the second, plain pass
    assert relative(*views) <= (1e-12 if dtype == torch.float64 else 2e-6)
    assert (gradients[0] - gradients[1]).norm() <= tolerance * gradients[1].norm()


@pytest.mark.slow
def test_it_compiles_in_one_piece_in_both_forms():
    network, images = warmed_up("C4", depth=1), torch.randn(5, 1, 16, 16)
    for form in (network.fold(), copy.deepcopy(network).train()):
        plain = copy.deepcopy(form)
        view = torch.compile(form, backend="aot_eager", fullgraph=True)(images).view
        assert relative(view, plain(images).view) <= 2e-6
        for ours, theirs in zip(form.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_only_the_map_that_is_asked_for_is_pooled():
    network, pooled = warmed_up("C4", depth=1), []
    network.pool.register_forward_hook(lambda *_: pooled.append(0))
    images = torch.randn(1, 1, 16, 16)
    last = network.last_map(images)
    assert len(pooled) == 1
    assert torch.equal(network.stages(images)[-1], last)
    assert len(pooled) == 4


def test_impossible_groups_and_images_are_refused():
    with pytest.raises(InputError, match="group='C5' should be 'C4', 'C8', 'D4' or 'D8'"):
        EqCvTInvariant(1, EqCvTInvariantOptions("C5"))
    with pytest.raises(InputError, match="image size 0x5 px is empty"):
        EqCvTInvariant(1, folded=True).map_size(0, 5)
