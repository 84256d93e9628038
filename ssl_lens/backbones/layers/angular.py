"""How a map varies around the lens: its power by the number of turns, ring by ring."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RINGS = 10
DIRECTIONS = 64  # a multiple of 4, so that a quarter turn moves them onto one another
BANDS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))  # periods in a turn, from and to
NUMBERS = RINGS * len(BANDS)  # of a map
SMALLEST = 1e-12  # added under the square root, whose slope at 0 would be infinite


def angular_power(maps: Tensor) -> Tensor:
    """Amplitude of a map's variation around its centre, in rings and by bands of periods in a turn.

    Each map is looked at in 64 directions on 10 circles, bilinearly. What a band holds is the root of the sum of the
    squares of its Fourier amplitudes. An arc is of few periods, what a small mass does to it is of many. Invariant to
    turns by 90 degrees and flips exactly, to others as far as the map itself turns with the image.

    Shapes: maps [B, C, h, w] -> [B, C * NUMBERS].
    """
    circles = F.grid_sample(
        maps, _places(maps).expand(maps.shape[0], -1, -1, -1), align_corners=False
    )  # [B, C, RINGS, A]
    waves = circles @ _waves().to(maps)
    power = waves.square().unflatten(-1, (2, -1)).sum(dim=-2)  # [B, C, RINGS, periods]
    bands = torch.stack([power[..., low - 1 : high].sum(dim=-1) for low, high in BANDS], dim=-1)
    return (bands + SMALLEST).sqrt().flatten(1)


def _places(maps: Tensor) -> Tensor:
    """Where the circles lie, [1, RINGS, DIRECTIONS, 2], in `grid_sample`'s units: the sides are -1 and 1."""
    side = min(maps.shape[2:])
    radius = (torch.arange(RINGS) + 0.5) / RINGS * (side - 1)  # within the middles of the outermost pixels
    angle = torch.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    offset = radius[:, None, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return (offset / torch.tensor([maps.shape[3], maps.shape[2]]))[None].to(maps)


def _waves() -> Tensor:
    """Cosines, then sines, of 1, 2, ... periods in a turn, [DIRECTIONS, 2 * periods], for mean amplitudes."""
    periods = torch.arange(1, BANDS[-1][1] + 1, dtype=torch.float64)
    angle = torch.arange(DIRECTIONS, dtype=torch.float64)[:, None] * periods * (2 * math.pi / DIRECTIONS)
    return torch.cat([angle.cos(), angle.sin()], dim=1).float() / DIRECTIONS
