"""Orientations relative to the lens: what is tangential to the centre of an image, and what points at it."""

from __future__ import annotations

import torch
from torch import Tensor

HARMONICS = 3  # k = 0, 1, 2: more lower what few labels reach


def direction_cosines(height: int, width: int, harmonics: int) -> tuple[Tensor, Tensor]:
    """cos(k phi) and sin(k phi), phi the direction of each pixel from the centre, counterclockwise from the x axis.

    The centre itself, a pixel of an odd map, has no direction: all harmonics but k=0 are 0 there.

    Args:
        height, width: of the map, px.
        harmonics: k = 0 .. harmonics - 1.

    Returns: two of [harmonics, height, width], float32.
    """
    up, left = ((length - 1) / 2 - torch.arange(length, dtype=torch.float64) for length in (height, width))
    radius = (up[:, None].square() + left.square()).sqrt().clamp_min(0.5)
    cosine, sine = -left / radius, up[:, None] / radius
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(1, harmonics):  # ONNX has no complex powers
        before = cosines[-1], sines[-1]
        cosines.append(before[0] * cosine - before[1] * sine)
        sines.append(before[0] * sine + before[1] * cosine)
    return torch.stack(cosines).float(), torch.stack(sines).float()
