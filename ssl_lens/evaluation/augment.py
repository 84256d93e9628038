"""Augmentation for supervised training: a lens rotated or mirrored is a lens of the same class."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation: TypeAlias = Literal["continuous", "right-angle", "none"]


def augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """A random rotation and flip of every image [B, C, H, W], drawn from `generator` (on the CPU).

    continuous: any angle, bilinear, mirrored at the edges. right-angle: multiples of 90 degrees, exact pixels, square
    images only.
    """
    match augmentation:
        case "none":
            return images
        case "right-angle":
            return _right_angle(images, torch.randint(8, (len(images),), generator=generator))
        case "continuous":
            angles = 2 * math.pi * torch.rand(len(images), generator=generator)
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            return _rotate(images, angles, mirrored)


def _right_angle(images: Tensor, element: Tensor) -> Tensor:
    """Applies to each image one of the 8 symmetries of the square: `element` int [B], quarter turns + 4 if mirrored."""
    turned = images.clone()
    for k in range(8):
        chosen = (element == k).to(images.device)
        mirrored = images[chosen].flip(-1) if k >= 4 else images[chosen]
        turned[chosen] = mirrored.rot90(k % 4, (-2, -1))
    return turned


def _rotate(images: Tensor, angles: Tensor, mirrored: Tensor) -> Tensor:
    """Mirrors left-right the images that `mirrored` [B] marks and turns each by its angle [B], in one resampling."""
    height, width = images.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    sign = 1 - 2 * mirrored.float()
    stretch = height / width  # affine_grid counts in half sides
    zero = torch.zeros_like(cos)
    rows = [torch.stack([sign * cos, -sign * sin * stretch, zero], 1), torch.stack([sin / stretch, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
