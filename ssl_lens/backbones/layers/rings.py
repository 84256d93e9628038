"""Statistics of maps in concentric rings around the lens."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_RINGS = 6
LOG_GAIN = 30  # linear below 1/30 of a pixel's standard deviation


def compressed(features: Tensor) -> Tensor:
    """sign(f) log(1 + 30 |f|), so that a few bright images do not outweigh the others."""
    return features.sign() * torch.log1p(LOG_GAIN * features.abs())


def ring_statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation in concentric rings: maps [B, C, h, w] -> [B, 2 rings C].

    There are `MAX_RINGS` rings, fewer where the map has not two pixels per ring and side; they share out the half
    side, and a pixel between the middles of two rings counts for both, by its distance. Invariant to turns by 90
    degrees and flips exactly, to others as far as the map itself turns with the image. The gradient is finite; that of
    a standard deviation of 0 is 0.
    """
    pixels = precise(maps).flatten(2)
    weights = _ring_weights(*maps.shape[2:]).to(pixels)
    mean = pixels @ weights
    return torch.cat([mean, _ring_deviation(pixels, mean, weights)], dim=2).flatten(1)


def _ring_deviation(pixels: Tensor, mean: Tensor, weights: Tensor) -> Tensor:
    """Standard deviation in each ring: pixels [B, C, h w], mean [B, C, rings], weights [h w, rings] -> as mean.

    About the mean of each ring, for a difference of mean squares would leave rounding in place of a small scatter.
    """
    rings = zip(mean.split(1, dim=2), weights.unbind(1), strict=True)
    variance = torch.stack([(pixels - centre).square() @ weight for centre, weight in rings], dim=2)
    spread = variance > 0
    return torch.where(spread, torch.where(spread, variance, 1.0).sqrt(), 0.0)  # no square root of 0: its slope is inf


def _ring_weights(height: int, width: int) -> Tensor:
    """Share of every pixel in every ring, [h w, rings], each column summing to 1."""
    side = min(height, width)
    rings = max(1, min(MAX_RINGS, side // 2))
    y, x = (torch.arange(length) - (length - 1) / 2 for length in (height, width))
    radius = (y[:, None].square() + x.square()).sqrt().flatten()[:, None]  # px; ONNX has no hypot
    place = radius / (side / 2) * rings  # in ring widths
    middles = torch.arange(rings) + 0.5
    weights = (1 - (place - middles).abs()).clamp_min(0)
    weights[place[:, 0] < 0.5, 0] = 1
    return weights / weights.sum(dim=0)


def precise(maps: Tensor) -> Tensor:
    """Half precision widened to float32, in which statistics are computed."""
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
