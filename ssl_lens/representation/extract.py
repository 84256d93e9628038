"""Images become rows of numbers: what a frozen backbone makes of them, or the pixels that it sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.backbones.backbone import FixedFrontBackbone
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.inputs import BATCH_SIZE, device_of, in_advance, raw_batches


@torch.inference_mode()
def extract(
    frozen: FrozenBackbone, images: Images, *, batch_size: int = BATCH_SIZE, progress: str | None = None
) -> np.ndarray:
    """Features float32 [N, F] of raw images [N, C, H, W], in order: the `features` of calling the frozen backbone.

    Computed on the backbone's device, batch by batch.

    Args:
        progress: what a progress bar on a terminal is called; none is shown if None.
    """
    batches = in_advance(raw_batches(images, batch_size, progress=progress))
    return torch.cat([frozen.features(batch).float().cpu() for batch in batches]).numpy()


@torch.inference_mode()
def fixed_features(
    backbone: FixedFrontBackbone, preprocess: Preprocess, images: Images, *, progress: str | None = None
) -> Tensor:
    """What the fixed part of a backbone says of raw images [N, C, H, W]: float32 [N, F] on the CPU, in order."""
    device = device_of(preprocess)
    batches = in_advance(raw_batches(images, BATCH_SIZE, progress=progress))
    return torch.cat([backbone.fixed_features(preprocess(batch.to(device))).float().cpu() for batch in batches])


@torch.no_grad()
def preprocessed(preprocess: Preprocess, images: Images, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """What a backbone sees of raw images [N, C, H, W]: float32 [N, C, h, w] on the CPU, in order."""
    device = device_of(preprocess)
    return torch.cat([preprocess(batch.to(device)).cpu() for batch in raw_batches(images, batch_size)])
