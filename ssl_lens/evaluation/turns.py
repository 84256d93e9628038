"""Rotations of images by multiples of 45 degrees, and how much outputs differ over them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ssl_lens.evaluation.augment import rotate

EIGHTHS = 8  # of a full turn: the rotations by multiples of 45 degrees


def turned(images: Tensor, eighths: int) -> Tensor:
    """Images [B, C, H, W] rotated counter-clockwise by `eighths` * 45 degrees about their centre; the shape stays.

    Quarter turns of square images and half turns of any move pixels and change none. All else is resampled once,
    bilinearly, by 45 degrees beyond the quarter turn before; what lies outside the image is filled with its mirror
    image at the edge.
    """
    height, width = images.shape[-2:]
    quarters, odd = divmod(eighths, 2)
    if height != width:  # a quarter turn would not fit: it is resampled with the rest
        quarters, odd = 2 * (eighths // 4), eighths % 4
    if odd:
        angles = torch.full((len(images),), odd * math.pi / 4)
        images = rotate(images, angles, torch.zeros(len(images), dtype=torch.bool))
    return images.rot90(quarters, (-2, -1))


def spread(outputs: np.ndarray) -> np.ndarray:
    """How much outputs [R, N, K] at R rotations differ: their standard deviation over R, averaged over N images, [K].

    The standard deviation is that of the R values themselves (divided by R, not R - 1). For logits its mean over K is
    the "logit std" of the lens literature, with R = 8 rotations by 45 degrees.
    """
    return outputs.astype(np.float64).std(axis=0).mean(axis=0)


def quarter_turns(outputs: np.ndarray) -> np.ndarray:
    """Of outputs [8, N, K] at all multiples of 45 degrees those at multiples of 90, [4, N, K]."""
    assert len(outputs) == EIGHTHS, "one set of outputs per eighth of a turn"
    return outputs[::2]
