"""Images become rows of numbers: what a frozen backbone makes of them, or the pixels that it sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.inputs import BATCH_SIZE, device_of, raw_batches


@torch.inference_mode()
def extract(
    frozen: FrozenBackbone, images: Images, *, batch_size: int = BATCH_SIZE, progress: str | None = None
) -> np.ndarray:
    """Features float32 [N, F] of raw images [N, C, H, W], in order: the `features` of calling the frozen backbone.

    Computed on the backbone's device, batch by batch.

    Args:
        progress: what a progress bar on a terminal is called; none is shown if None.
    """
    batches = raw_batches(images, batch_size, progress=progress)
    return torch.cat([frozen.features(batch).float().cpu() for batch in batches]).numpy()


@torch.no_grad()
def preprocessed(preprocess: Preprocess, images: Images, *, batch_size: int = BATCH_SIZE) -> Tensor:
    """What a backbone sees of raw images [N, C, H, W]: float32 [N, C, h, w] on the CPU, in order."""
    device = device_of(preprocess)
    return torch.cat([preprocess(batch.to(device)).cpu() for batch in raw_batches(images, batch_size)])


def whitened(train: np.ndarray, test: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Both parts on the leading principal components of the training part, each of unit variance; needs no labels.

    Nearest neighbours then weigh all directions alike, rather than the few (brightness, radius) that vary most.

    Shapes: train [N, F], test [M, F]; returns float32 [N, components], [M, components], fewer where N or F are.
    """
    from sklearn.decomposition import PCA  # takes seconds to import, and an export does without
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    reduce = make_pipeline(StandardScaler(), PCA(min(components, *train.shape), whiten=True, random_state=0))
    return reduce.fit_transform(train).astype(np.float32), reduce.transform(test).astype(np.float32)
