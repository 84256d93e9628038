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
    up, right = ((length - 1) / 2 - torch.arange(length, dtype=torch.float64) for length in (height, width))
    right = -right
    radius = (up[:, None].square() + right.square()).sqrt()
    unit = torch.complex(right.expand(height, width), up[:, None].expand(height, width)) / radius.clamp_min(0.5)
    powers = torch.stack([unit**k for k in range(harmonics)])
    return powers.real.float(), powers.imag.float()
