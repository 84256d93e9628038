"""A probe as a layer on its backbone: what it says first, how fast its layers learn, what it becomes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.lens_mlp import LensMLP, LensMLPOptions
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.probes.objective import objective
from ssl_lens.evaluation.probes.probe_network import ProbeNetwork, fixed_inputs, layer_groups, probe_network
from ssl_lens.evaluation.probes.ridge import Ridge
from ssl_lens.representation.alignment import Alignment
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.pooling_names import Pooling

COUNT = 24


def _backbone(name: str) -> MapBackbone:
    torch.manual_seed(0)
    match name:
        case "swin":
            return Swin(1, SwinOptions(embed_dim=8, depths=(1, 1), num_heads=(2, 2), drop_path=0.0))
        case "resnet":
            network = ResNet(1, ResNetOptions(width=4, depths=(1, 1)))
            network.train()(torch.randn(8, 1, 48, 48))  # statistics other than those of any batch below
            return network
        case _:
            network = LensMLP(1, LensMLPOptions(width=16))
            network.set_domain(network.fixed_features(_images()))
            return network


def _images() -> Tensor:
    """Blobs off the centre, of a width for each of three classes, with noise."""
    noise = torch.randn(COUNT, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    place = torch.arange(48.0)
    distance = (place[:, None] - 20).square() + (place - 26).square()
    width = 2.0 + 2 * (torch.arange(COUNT) % 3)
    return 3 * torch.exp(-distance / (2 * width.square()[:, None, None, None])) + 0.5 * noise


def _answers(kind: str) -> Classes | Numbers:
    labels = np.arange(COUNT) % 3
    if kind == "classes":
        return Classes(labels, ("a", "b", "c"))
    numbers = np.random.default_rng(0).normal(size=(COUNT, 2)) + labels[:, None]
    return Numbers(numbers * [1, 50] + [3, -7], ("s", "t"), (False, False))


def _frozen(name: str, pooling: Pooling, *, aligned: bool = False) -> FrozenBackbone:
    frozen = FrozenBackbone(Preprocess.plain(1), _backbone(name), pooling)
    if not aligned:
        return frozen
    count = _features(frozen).shape[1]
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(count, 5, generator=generator) / count**0.5
    numbers = torch.randn(count, generator=generator), torch.rand(count, generator=generator) + 0.5
    return FrozenBackbone(Preprocess.plain(1), frozen.backbone, pooling, Alignment(*numbers, directions))


def _features(frozen: FrozenBackbone) -> np.ndarray:
    with torch.no_grad():
        return frozen.represent(_images()).features.numpy()


def _network(frozen: FrozenBackbone, kind: str = "classes") -> tuple[ProbeNetwork, np.ndarray]:
    """A network and what the probe says, numbers standardised."""
    answers = _answers(kind)
    features = _features(frozen)
    goal = objective(answers, np.arange(COUNT))
    probe = Ridge().fit(features, answers, seed=0)
    said = probe.outputs(features)
    if isinstance(answers, Numbers):
        said = (said - answers.values.mean(axis=0)) / answers.values.std(axis=0)
    return probe_network(frozen, probe, goal), said


@pytest.mark.parametrize("kind", ["classes", "numbers"])
@pytest.mark.parametrize(
    ("name", "pooling", "aligned"),
    [
        ("swin", "view", False),
        ("swin", "stage_rings", True),
        ("resnet", "stage_rings", False),
        ("mlp", "joined", False),
        ("mlp", "log_rings", True),
        ("mlp", "view", False),
    ],
)
def test_it_begins_as_the_probe_and_is_saved_as_it_is(name, pooling, aligned, kind):
    """In training too, whose batch norm would otherwise see the statistics of a few images."""
    network, said = _network(_frozen(name, pooling, aligned=aligned), kind)
    assert np.ptp(said) > 0.1
    for mode in (False, True):
        ours = network.train(mode)(_images()).detach().numpy()
        np.testing.assert_allclose(ours, said, atol=2e-4)
    with torch.no_grad():
        np.testing.assert_allclose(network.predictor()(_images()).numpy(), said, atol=2e-4)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("pooling", ["joined", "log_rings", "stages", "rings", "view"])
def test_behind_a_fixed_front_each_image_is_looked_at_once(pooling):
    """What is computed of its inputs is what is computed of the images, whatever the layers have become."""
    frozen = _frozen("mlp", pooling)
    network, _ = _network(frozen)
    inputs = fixed_inputs(frozen, _images())
    before = network(inputs).detach()
    with torch.no_grad():
        for parameter in network.backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    network.backbone.wavelets.stages = None  # is not looked through again
    after = network(inputs)
    del network.backbone.wavelets.stages
    assert (after - before).abs().max() > 0.05
    np.testing.assert_allclose(after.detach(), network(_images()).detach(), atol=1e-4)
    after.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_outputs_are_averaged_over_quarter_turns_but_for_training():
    network, said = _network(_frozen("swin", "stages"))
    network.quarter_turns = True
    turned = [network.train()(_images().rot90(turn, (-2, -1))).detach() for turn in range(4)]
    assert (turned[0] - turned[1]).abs().max() > 0.01
    np.testing.assert_allclose(turned[0], said, atol=2e-4)
    mean = torch.stack(turned).mean(dim=0)
    np.testing.assert_allclose(network.eval()(_images()).detach(), mean, atol=1e-5)
    np.testing.assert_allclose(network.predictor()(_images()).detach(), mean, atol=2e-4)


def test_layers_learn_the_faster_the_later_they_are_and_each_is_in_one_group():
    network, _ = _network(_frozen("resnet", "view"))
    groups = layer_groups(network, 0.05)
    ours = [parameter for group in groups for parameter in group["params"]]
    assert sorted(map(id, ours)) == sorted(map(id, network.parameters()))
    rates = [group["rate"] for group in groups]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-2:] == [1, 1]
    assert rates == sorted(rates)
    layers = [module for module in network.backbone.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    of = {id(group["params"][0]): group["rate"] for group in groups}
    assert of[id(layers[3].weight)] == pytest.approx(10 ** -(1 - 3 / len(layers)))
    for group in groups:
        assert group["weight_decay"] == (0.05 if group["params"][0].ndim > 1 else 0)
