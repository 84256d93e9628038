"""Poolings: the maps of a backbone's stages become one vector per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_lens.backbones.backbone import Features, FixedFrontBackbone, MapBackbone
from ssl_lens.backbones.layers.rings import compressed, precise, ring_statistics
from ssl_lens.representation.pooling_names import Pooling


def pooled(backbone: MapBackbone, images: Tensor, pooling: Pooling) -> Tensor:
    """One vector per preprocessed image [B, C, h, w], from one pass through the backbone.

    view: the view feature, [B, D]; joined: log_rings of the maps, then the view; all others: `pool_maps` of the
    backbone's stages.
    """
    if pooling == "view":
        return backbone(images).view
    if pooling == "joined":
        return pool_features(*features_and_stages(backbone, images), pooling)
    return pool_maps(backbone.stages(images), pooling)


def features_and_stages(backbone: MapBackbone, images: Tensor) -> tuple[Features, list[Tensor]]:
    """Both from one pass where the view is the mean of the last map; from two where a network has its own."""
    stages = backbone.stages(images)
    if type(backbone).forward not in (MapBackbone.forward, FixedFrontBackbone.forward):
        return backbone(images), stages
    regions = stages[-1].flatten(2).transpose(1, 2)
    return Features(regions.mean(dim=1), regions), stages


def pool_features(features: Features, stages: Sequence[Tensor], pooling: Pooling) -> Tensor:
    """`pooled` of what a backbone has said already.

    A map of one pixel is not pooled in joined: it says what the view says.
    """
    if pooling == "view":
        return features.view
    if pooling != "joined":
        return pool_maps(stages, pooling)
    maps = [each for each in stages if each[0, 0].numel() > 1]
    view = precise(features.view)
    return torch.cat([pool_maps(maps, "log_rings"), view], dim=1) if maps else view


def pool_maps(stages: Sequence[Tensor], pooling: Pooling) -> Tensor:
    """One vector per image from the maps [B, C_i, h_i, w_i] of all stages, finest first.

    stats: mean, maximum and standard deviation over the last map, [B, 3 D]; a faint local signal outlives the maximum,
    not the mean. stages: the same of every stage's map, [B, 3 sum(C_i)]. rings: mean and standard deviation in
    concentric rings of the last map, which keep the distance from the lens's centre and ignore its orientation,
    [B, 2 rings D]. stage_rings: the same of every stage's map. log_rings: sign(f) log(1 + 30 |f|) of each of those, so
    that a few bright images do not outweigh the others.

    Statistics are computed in float32, or in float64 of such maps, even under autocast.
    """
    assert pooling not in ("view", "joined"), "the view is the backbone's own vector, not one of its maps"
    statistics = map_statistics if pooling in ("stats", "stages") else ring_statistics
    used = stages[-1:] if pooling in ("stats", "rings") else stages
    with torch.autocast(stages[-1].device.type, enabled=False):  # a variance in bfloat16 would be noise
        features = torch.cat([statistics(maps) for maps in used], dim=1)
        return compressed(features) if pooling == "log_rings" else features


def map_statistics(maps: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over space: maps [B, C, h, w] -> [B, 3 C]."""
    pixels = precise(maps).flatten(2)
    return torch.cat([pixels.mean(2), pixels.amax(2), pixels.std(2, correction=0)], dim=1)
