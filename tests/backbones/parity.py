"""Weights and images by formula, so that the output of an independent implementation is the whole fixture.

A fixture in tests/models/fixtures is made once: the independent implementation gets `formula_weights` of our network
under its own names, sees `formula_image`, and what it returns is stored.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

GOLDEN_RATIO = 0.6180339887498949


def formula_image(*shape: int) -> Tensor:
    """Float64 noise of variance 1, the same on every machine."""
    return _noise(shape, phase=0.5)


def formula_blobs(images: int, blobs: int, size: int, angle: float) -> Tensor:
    """Smooth blobs [images, 1, size, size] within the inscribed disc, drawn turned by the angle from x to y."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    x = axis * math.cos(angle) + axis[:, None] * math.sin(angle)
    y = axis[:, None] * math.cos(angle) - axis * math.sin(angle)
    x0, y0, wide, high = formula_image(images, blobs, 4)[..., None, None].unbind(2)
    distance = ((x - size * x0 / 8) / (3 + wide)) ** 2 + ((y - size * y0 / 8) / (3 + high)) ** 2
    return (-distance).exp().sum(dim=1, keepdim=True).float()


def formula_weights(module: nn.Module) -> dict[str, Tensor]:
    """A float64 state dict for `module`: matrices and filters scaled by their fan-in, norms near the identity."""
    state = {}
    for i, (name, tensor) in enumerate(module.state_dict().items()):
        if not tensor.is_floating_point():
            state[name] = tensor
            continue
        noise = _noise(tensor.shape, phase=i + 1.0)
        if name.endswith("running_var"):
            state[name] = noise.abs() + 0.5
        elif tensor.ndim >= 2:
            state[name] = noise * tensor[0].numel() ** -0.5
        else:
            state[name] = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    return state


def _noise(shape: tuple[int, ...], *, phase: float) -> Tensor:
    """Points of a low-discrepancy sequence, scrambled by a second one, of mean 0 and variance 1."""
    count = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    uniform = (count * GOLDEN_RATIO + (count.square() * 0.3819660112501051).frac() + 0.7548776662466927 * phase).frac()
    return ((uniform - 0.5) * 12**0.5).reshape(shape)
