"""How far the pixels of a set reach, and the noise in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.preprocess import Preprocess, evenly_spaced, few_images, in_chunks
from ssl_lens.data.pixels.stretch import robust_scatter


@torch.no_grad()
def pixel_range(preprocess: Preprocess, images: Images, *, limit: int = 256) -> tuple[float, float]:
    """Lowest and highest pixel of at most `limit` evenly spaced images [N, C, H, W], once prepared."""
    device = preprocess.mean.device
    chosen = evenly_spaced(len(images), limit)
    parts = (preprocess(torch.from_numpy(images[index]).to(device)) for index in in_chunks(chosen, images))
    ends = torch.stack([torch.stack(part.aminmax()) for part in parts])
    return ends[:, 0].min().item(), ends[:, 1].max().item()


def noise_of_images(preprocess: Preprocess, noise: np.ndarray) -> Tensor:
    """Standard deviation [N, C] of the noise in linear pixels, on the CPU, from that in raw pixels [N, C].

    It is that of a mean of `bin` x `bin` independent ones. An image whose noise is not known has the median of the
    others, of which there must be one for each channel.
    """
    known = np.where(np.isfinite(noise), noise, np.nanmedian(noise, axis=0))
    return (torch.from_numpy(known) / preprocess.bin / preprocess.unit.cpu()).float()


@torch.no_grad()
def noise_of_set(preprocess: Preprocess, images: Images) -> Tensor:
    """Scatter [C] of linear pixels of the sky, on the CPU, for a set [N, C, H, W] whose noise nobody says.

    It is the scale of an asinh stretch of each band: the noise where sky fills most of the images.
    """
    linear = preprocess.linear(torch.from_numpy(few_images(images)).to(preprocess.mean.device)).cpu().numpy()
    bands = (linear[:, channel].astype(np.float64) for channel in range(linear.shape[1]))
    # all equal in these few images, as can be without a stretch: the unit itself, which is the whole set's scatter
    return torch.tensor([robust_scatter(band) if band.min() < band.max() else 1.0 for band in bands])
