"""Poolings: the maps of a backbone's stages become one vector per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.representation.pooling_names import Pooling

MAX_RINGS = 6
LOG_GAIN = 30  # of log_rings: linear below 1/30 of a pixel's standard deviation


def pooled(backbone: MapBackbone, images: Tensor, pooling: Pooling) -> Tensor:
    """One vector per preprocessed image [B, C, h, w], from one pass through the backbone.

    view: the view feature, [B, D]; all others: `pool_maps` of the backbone's stages.
    """
    return backbone(images).view if pooling == "view" else pool_maps(backbone.stages(images), pooling)


def pool_maps(stages: Sequence[Tensor], pooling: Pooling) -> Tensor:
    """One vector per image from the maps [B, C_i, h_i, w_i] of all stages, finest first.

    stats: mean, maximum and standard deviation over the last map, [B, 3 D]; a faint local signal outlives the maximum,
    not the mean. stages: the same of every stage's map, [B, 3 sum(C_i)]. rings: mean and standard deviation in
    concentric rings of the last map, which keep the distance from the lens's centre and ignore its orientation,
    [B, 2 rings D]. stage_rings: the same of every stage's map. log_rings: sign(f) log(1 + 30 |f|) of each of those, so
    that a few bright images do not outweigh the others.

    Statistics are computed in float32, or in float64 of such maps, even under autocast.
    """
    assert pooling != "view", "the view is the backbone's own vector, not one of its maps"
    statistics = map_statistics if pooling in ("stats", "stages") else ring_statistics
    used = stages[-1:] if pooling in ("stats", "rings") else stages
    with torch.autocast(stages[-1].device.type, enabled=False):  # a variance in bfloat16 would be noise
        features = torch.cat([statistics(maps) for maps in used], dim=1)
        return features.sign() * torch.log1p(LOG_GAIN * features.abs()) if pooling == "log_rings" else features


def map_statistics(maps: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over space: maps [B, C, h, w] -> [B, 3 C]."""
    pixels = _precise(maps).flatten(2)
    return torch.cat([pixels.mean(2), pixels.amax(2), pixels.std(2, correction=0)], dim=1)


def ring_statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation in concentric rings: maps [B, C, h, w] -> [B, 2 rings C].

    There are `MAX_RINGS` rings, fewer where the map has not two pixels per ring and side; they share out the half
    side, and a pixel between the middles of two rings counts for both, by its distance. Invariant to turns by 90
    degrees and flips exactly, to others as far as the map itself turns with the image. The gradient is finite; that of
    a standard deviation of 0 is 0.
    """
    pixels = _precise(maps).flatten(2)
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


def _precise(maps: Tensor) -> Tensor:
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
