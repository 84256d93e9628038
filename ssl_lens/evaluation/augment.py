"""Augmentation for supervised training: a lens rotated or mirrored is a lens of the same class."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.errors import InputError

Augmentation: TypeAlias = Literal["continuous", "right-angle", "none"]


def augment(images: Tensor, augmentation: Augmentation, draws: Tensor) -> Tensor:
    """A random rotation and flip of every image [B, C, H, W].

    continuous: any angle, bilinear, mirrored at the edges. right-angle: multiples of 90 degrees, exact pixels, square
    images only.

    Args:
        draws: evenly distributed in 0..1, two numbers for every image, [B, 2]; they alone decide.
    """
    match augmentation:
        case "none":
            return images
        case "right-angle":
            return _right_angle(images, (8 * draws[:, 0]).long())
        case "continuous":
            return rotate(images, 2 * math.pi * draws[:, 0], draws[:, 1] < 0.5)


def check_augmentation(augmentation: Augmentation, height: int, width: int) -> None:
    """Raises InputError where images of this size in pixels cannot be augmented so."""
    if augmentation == "right-angle" and height != width:
        raise InputError(
            f"augmentation=right-angle needs square images, these are {height}x{width} px; "
            "crop them to squares, or use augmentation=continuous"
        )


def rotate(images: Tensor, angles: Tensor, mirrored: Tensor) -> Tensor:
    """Mirrors left-right the images that `mirrored` [B] marks and turns each counter-clockwise by its angle [B].

    One bilinear resampling; what lies outside the image is its mirror image. Angles in radians.
    """
    height, width = images.shape[-2:]
    cos, sin = angles.cos(), angles.sin()
    sign = 1 - 2 * mirrored.float()
    stretch = height / width  # affine_grid counts in half sides
    zero = torch.zeros_like(cos)
    rows = [torch.stack([sign * cos, -sign * sin * stretch, zero], 1), torch.stack([sin / stretch, cos, zero], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _right_angle(images: Tensor, element: Tensor) -> Tensor:
    """Applies to each image one of the 8 symmetries of the square: `element` int [B], quarter turns + 4 if mirrored."""
    turned = images.clone()
    for k in range(8):
        chosen = (element == k).to(images.device)
        mirrored = images[chosen].flip(-1) if k >= 4 else images[chosen]
        turned[chosen] = mirrored.rot90(k % 4, (-2, -1))
    return turned
