"""A probe becomes a network that can be trained: a backbone with the probe as its last layer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_lens.backbones.backbone import FixedFrontBackbone
from ssl_lens.evaluation.probes.linear import LinearClassifier
from ssl_lens.evaluation.probes.objective import Objective
from ssl_lens.evaluation.probes.ridge import LinearRegressor
from ssl_lens.representation.alignment import Alignment
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.pooling import pool_features, pooled
from ssl_lens.representation.predictor import Predictor, Targets, linear_head, mean_over_quarter_turns

FIRST_LAYER_RATE = 0.1  # learning rate of the first layer over that of the last; geometric in between


class ProbeHead(nn.Module):
    """Outputs W (x - mean) / scale + b of features x, of which W and b are trained.

    Shapes: weight [O, F], bias [O], mean and scale [F], of features behind the alignment, if there is one.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, scale: np.ndarray, alignment: Alignment | None
    ) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(_single(weight)), nn.Parameter(_single(bias))
        self.register_buffer("mean", _single(mean))
        self.register_buffer("scale", _single(scale))
        self.alignment = alignment

    def forward(self, features: Tensor) -> Tensor:
        mapped = features if self.alignment is None else self.alignment(features)
        return ((mapped - self.mean) / self.scale) @ self.weight.T + self.bias

    def folded(self) -> nn.Linear:
        """One layer on the features themselves."""
        numbers = (each.detach().double().cpu().numpy() for each in (self.weight, self.bias, self.mean, self.scale))
        weight, bias, mean, scale = numbers
        head = linear_head(weight, bias, mean=mean, scale=scale)
        return head if self.alignment is None else self.alignment.folded_into(head)


class ProbeNetwork(nn.Module):
    """A copy of a frozen backbone, to be trained, under its probe; what it says first is what the probe says.

    Batch norm keeps the statistics of pretraining, in training too: those of a few images would be others.

    Attributes:
        quarter_turns: whether outputs, but for training, are the mean over an image's quarter turns.
    """

    def __init__(self, frozen: FrozenBackbone, head: ProbeHead) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(frozen.backbone).requires_grad_(True)
        self.pooling, self.head = frozen.pooling, head
        self.quarter_turns = False

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs [B, O] of preprocessed images [B, C, h, w], or of what `fixed_inputs` made of them."""
        if self.training or not self.quarter_turns:
            return self.head(self._features(inputs))
        return mean_over_quarter_turns(lambda turned: self.head(self._features(turned)), inputs)

    def train(self, mode: bool = True) -> ProbeNetwork:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def predictor(self) -> Predictor:
        """What it says, as a network that can be saved."""
        head = self.head.folded().to(self.head.bias.device)
        return Predictor(self.backbone, head, self.pooling, quarter_turns=self.quarter_turns).eval()

    def _features(self, inputs: Tensor) -> Tensor:
        if not isinstance(self.backbone, FixedFrontBackbone) or inputs.ndim == 4:
            return pooled(self.backbone, inputs, self.pooling)
        count = len(self.head.mean if self.head.alignment is None else self.head.alignment.mean)
        measured, fixed = inputs[:, :count], inputs[:, count:]
        said = self.backbone.from_fixed(fixed)
        learned = pool_features(said, [said.view[..., None, None]], self.pooling)  # the last map is one pixel
        return torch.cat([measured[:, : count - learned.shape[1]], learned], dim=1)


def probe_network(frozen: FrozenBackbone, probe: LinearClassifier | LinearRegressor, goal: Objective) -> ProbeNetwork:
    """The network that says what a linear probe of a frozen backbone says; numbers are standardised as the goal's."""
    weight, bias = probe.weight, probe.bias
    if isinstance(goal.outputs, Targets):
        mean, std = np.array(goal.outputs.mean), np.array(goal.outputs.std)
        weight, bias = weight / std[:, None], (bias - mean) / std
    alignment = copy.deepcopy(frozen.alignment)
    return ProbeNetwork(frozen, ProbeHead(weight, bias, probe.mean, probe.scale, alignment))


def fixed_inputs(frozen: FrozenBackbone, prepared: Tensor) -> Tensor:
    """What does not change in training, of preprocessed images [B, C, h, w] and a backbone with a fixed front.

    Its pooled features, of which those of the front are used, and what the front says to the rest: [B, F + fixed].
    """
    assert isinstance(frozen.backbone, FixedFrontBackbone)
    measured = pooled(frozen.backbone, prepared, frozen.pooling)
    return torch.cat([measured, frozen.backbone.fixed_features(prepared)], dim=1)


def layer_groups(network: ProbeNetwork, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters for an optimiser, layer by layer in the order of the network, each with the `rate` at which it learns.

    The rate rises from `FIRST_LAYER_RATE` to 1 for the head: layer-wise decay (as Clark et al. 2020, ELECTRA), whatever
    the number of layers. One-dimensional parameters are not decayed.
    """
    layers = [layer for layer in network.backbone.modules() if any(True for _ in layer.parameters(recurse=False))]
    groups: list[dict[str, Any]] = []
    for place, layer in enumerate([*layers, network.head]):
        rate = FIRST_LAYER_RATE ** (1 - place / max(1, len(layers)))
        for parameter in layer.parameters(recurse=False):
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.append({"params": [parameter], "rate": rate, "weight_decay": decay})
    return groups


def _single(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()
