"""Images become rows of numbers: pooled features of a frozen backbone, or the pixels it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.representation.export import FrozenBackbone

Pooling: TypeAlias = Literal["view", "stats", "stages", "rings", "stage_rings"]
MAX_RINGS = 6


def pooled(backbone: Backbone | FrozenBackbone, images: Tensor, pooling: Pooling) -> Tensor:
    """One vector per image.

    view: the view feature, [B, D]. stats: mean, maximum and standard deviation over the last map, [B, 3 D]; a faint
    local signal outlives the maximum, not the mean. stages: the same of every stage's map, [B, 3 sum(C_i)].
    rings: mean and standard deviation in concentric rings of the last map, which keep the distance from the lens's
    centre and ignore its orientation, [B, 2 rings D]. stage_rings: the same of every stage's map.
    """
    match pooling:
        case "view":
            return backbone(images).view
        case "stats":
            return map_statistics(backbone.stages(images)[-1])
        case "stages":
            return torch.cat([map_statistics(stage) for stage in backbone.stages(images)], dim=1)
        case "rings":
            return ring_statistics(backbone.stages(images)[-1])
        case "stage_rings":
            return torch.cat([ring_statistics(stage) for stage in backbone.stages(images)], dim=1)


def map_statistics(maps: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over space: maps [B, C, h, w] -> [B, 3 C]."""
    pixels = maps.flatten(2)
    return torch.cat([pixels.mean(2), pixels.amax(2), pixels.std(2, correction=0)], dim=1)


def ring_statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation in concentric rings: maps [B, C, h, w] -> [B, 2 rings C].

    There are `MAX_RINGS` rings, fewer where the map has not two pixels per ring and side; they share out the half
    side, and a pixel between the middles of two rings counts for both, by its distance. Invariant to turns by 90
    degrees and flips exactly, to others as far as the map itself turns with the image.
    """
    pixels = maps.float().flatten(2)
    weights = _ring_weights(*maps.shape[2:]).to(pixels.device)
    mean = pixels @ weights
    variance = (pixels.square() @ weights - mean.square()).clamp_min(0)
    return torch.cat([mean, variance.sqrt()], dim=2).flatten(1)


def _ring_weights(height: int, width: int) -> Tensor:
    """Share of every pixel in every ring, [h w, rings], each column summing to 1."""
    side = min(height, width)
    rings = max(1, min(MAX_RINGS, side // 2))
    y, x = (torch.arange(length) - (length - 1) / 2 for length in (height, width))
    place = torch.hypot(y[:, None], x).flatten()[:, None] / (side / 2) * rings  # in ring widths
    middles = torch.arange(rings) + 0.5
    weights = (1 - (place - middles).abs()).clamp_min(0)
    weights[place[:, 0] < 0.5, 0] = 1
    return weights / weights.sum(dim=0)


@torch.inference_mode()
def extract(frozen: FrozenBackbone, images: np.ndarray, *, pooling: Pooling, batch_size: int = 256) -> np.ndarray:
    """Features float32 [N, F] of raw images [N, C, H, W], in order, computed on the backbone's device."""
    device = next(frozen.backbone.parameters()).device
    batches = (pooled(frozen, batch.to(device), pooling) for batch in _raw_batches(images, batch_size))
    return torch.cat([features.float().cpu() for features in batches]).numpy()


def whitened(train: np.ndarray, test: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Both parts on the leading principal components of the training part, each of unit variance; needs no labels.

    Nearest neighbours then weigh all directions alike, rather than the few (brightness, radius) that vary most.

    Shapes: train [N, F], test [M, F]; returns float32 [N, components], [M, components], fewer where N or F are.
    """
    reduce = make_pipeline(StandardScaler(), PCA(min(components, *train.shape), whiten=True, random_state=0))
    return reduce.fit_transform(train).astype(np.float32), reduce.transform(test).astype(np.float32)


@torch.no_grad()
def preprocessed(preprocess: Preprocess, images: np.ndarray, *, batch_size: int = 256) -> Tensor:
    """What a backbone sees of raw images [N, C, H, W]: float32 [N, C, h, w] on the CPU, in order."""
    device = preprocess.mean.device
    return torch.cat([preprocess(batch.to(device)).cpu() for batch in _raw_batches(images, batch_size)])


def _raw_batches(images: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), batch_size):
        yield torch.from_numpy(np.array(images[start : start + batch_size], dtype=np.float32))
