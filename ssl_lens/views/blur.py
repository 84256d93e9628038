"""Gaussian blur with its own width for every image of a batch."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.transfer import sent


def gaussian_blur(images: Tensor, sigma_px: Tensor, max_sigma_px: float) -> Tensor:
    """Convolves image i with a normalised Gaussian of standard deviation `sigma_px[i]`; mirrored at the border.

    Kernels reach 3 `max_sigma_px` for every image, so that one grouped convolution per axis serves the batch.

    Shapes: images [N, C, H, W] with H, W > 3 max_sigma_px, sigma_px [N]; returns [N, C, H, W].
    """
    n, channels, height, width = images.shape
    radius = math.ceil(3 * max_sigma_px)
    assert radius < min(height, width), f"blur of {radius} px does not fit {height}x{width} px"
    sigma_px = sent(sigma_px, images.device)
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    # clamped: a width of zero is the identity, not 0/0
    kernel = torch.softmax(-0.5 * (offset / sigma_px.clamp_min(1e-3)[:, None]) ** 2, dim=1)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None]

    groups = n * channels
    wide = F.pad(images.reshape(1, groups, height, width), (radius, radius, 0, 0), mode="reflect")
    rows = F.conv2d(wide, kernel[:, :, None, :], groups=groups)
    tall = F.pad(rows, (0, 0, radius, radius), mode="reflect")
    return F.conv2d(tall, kernel[:, :, :, None], groups=groups).view_as(images)
