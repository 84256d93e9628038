"""How a map varies around the lens: its power by the number of turns, ring by ring."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

RINGS = 10
DIRECTIONS = 64  # a multiple of 4, so that a quarter turn moves them onto one another
BANDS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))  # periods in a turn, from and to
NUMBERS = RINGS * len(BANDS)  # of a map
SMALLEST = 1e-12  # under the square root, whose slope at 0 would be infinite; ONNX exporters drop so small a term


def angular_power(maps: Tensor) -> Tensor:
    """Amplitude of a map's variation around its centre, in rings and by bands of periods in a turn.

    Each map is looked at in 64 directions on 10 circles, bilinearly. What a band holds is the root of the sum of the
    squares of its Fourier amplitudes. An arc is of few periods, what a small mass does to it is of many. Invariant to
    turns by 90 degrees and flips exactly, to others as far as the map itself turns with the image.

    Shapes: maps [B, C, h, w] -> [B, C * NUMBERS].
    """
    places, weights = _corners(*maps.shape[2:])
    pixels = maps.flatten(2)
    corners = zip(places.to(maps.device), weights.to(maps), strict=True)
    first, *others = (pixels[..., place] * weight for place, weight in corners)  # [B, C, RINGS * DIRECTIONS]
    circles = sum(others, start=first).unflatten(-1, (RINGS, DIRECTIONS))
    waves = circles @ _waves().to(maps)
    power = waves.square().unflatten(-1, (2, -1)).sum(dim=-2)  # [B, C, RINGS, periods]
    bands = torch.stack([power[..., low - 1 : high].sum(dim=-1) for low, high in BANDS], dim=-1)
    return bands.clamp_min(SMALLEST).sqrt().flatten(1)


def _corners(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The four pixels around each place on the circles, and their shares in it: two of [4, RINGS * DIRECTIONS].

    Shares are computed in float64: `grid_sample` rounds places, which the logarithm of a small amplitude would show.
    """
    radius = (np.arange(RINGS) + 0.5) / RINGS * (min(height, width) - 1) / 2
    angle = np.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    right = ((width - 1) / 2 + radius[:, None] * np.cos(angle)).ravel()
    down = ((height - 1) / 2 - radius[:, None] * np.sin(angle)).ravel()
    left, top = np.floor(right), np.floor(down)
    places, shares = [], []
    for y, of_row in ((top, 1 - (down - top)), (top + 1, down - top)):
        for x, of_column in ((left, 1 - (right - left)), (left + 1, right - left)):
            places.append(np.minimum(y, height - 1) * width + np.minimum(x, width - 1))
            shares.append(of_row * of_column)
    return torch.from_numpy(np.stack(places).astype(np.int64)), torch.from_numpy(np.stack(shares))


def _waves() -> Tensor:
    """Cosines, then sines, of 1, 2, ... periods in a turn, [DIRECTIONS, 2 * periods], for mean amplitudes."""
    angle = np.arange(DIRECTIONS)[:, None] * np.arange(1, BANDS[-1][1] + 1) * (2 * math.pi / DIRECTIONS)
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / DIRECTIONS)
