"""Images become rows of numbers: pooled features of a frozen backbone, or the pixels it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.preprocess import Preprocess
from ssl_lens.export import FrozenBackbone
from ssl_lens.models.backbone import Backbone

Pooling: TypeAlias = Literal["view", "stats", "stages"]


def pooled(backbone: Backbone | FrozenBackbone, images: Tensor, pooling: Pooling) -> Tensor:
    """One vector per image.

    view: the view feature, [B, D]. stats: mean, maximum and standard deviation over the last map, [B, 3 D]; a faint
    local signal outlives the maximum, not the mean. stages: the same of every stage's map, [B, 3 sum(C_i)].
    """
    match pooling:
        case "view":
            return backbone(images).view
        case "stats":
            return map_statistics(backbone.stages(images)[-1])
        case "stages":
            return torch.cat([map_statistics(stage) for stage in backbone.stages(images)], dim=1)


def map_statistics(maps: Tensor) -> Tensor:
    """Mean, maximum and standard deviation over space: maps [B, C, h, w] -> [B, 3 C]."""
    pixels = maps.flatten(2)
    return torch.cat([pixels.mean(2), pixels.amax(2), pixels.std(2, correction=0)], dim=1)


@torch.inference_mode()
def extract(frozen: FrozenBackbone, images: np.ndarray, *, pooling: Pooling, batch_size: int = 256) -> np.ndarray:
    """Features float32 [N, F] of raw images [N, C, H, W], in order, computed on the backbone's device."""
    device = next(frozen.backbone.parameters()).device
    batches = (pooled(frozen, batch.to(device), pooling) for batch in _raw_batches(images, batch_size))
    return torch.cat([features.float().cpu() for features in batches]).numpy()


@torch.no_grad()
def preprocessed(preprocess: Preprocess, images: np.ndarray, *, batch_size: int = 256) -> Tensor:
    """What a backbone sees of raw images [N, C, H, W]: float32 [N, C, h, w] on the CPU, in order."""
    device = preprocess.mean.device
    return torch.cat([preprocess(batch.to(device)).cpu() for batch in _raw_batches(images, batch_size)])


def _raw_batches(images: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), batch_size):
        yield torch.from_numpy(np.array(images[start : start + batch_size], dtype=np.float32))
