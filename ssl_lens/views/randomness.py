"""Random numbers as a pure function of keys: no generator, no state, no order of drawing.

A view is random by (seed, epoch, image index) alone, so that a resumed run, another batch composition or another
number of ranks makes the same views. Keys are folded, then drawn from; a key serves one of the two, not both.

    keys = fold_in(image_keys(seed, epoch, index), VIEW)
    uniform(keys, 4)        # four numbers per image
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN_64 = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed integer
_GOLDEN_32 = 0x9E3779B9 - (1 << 32)


def image_keys(seed: int, epoch: int, index: Tensor) -> Tensor:
    """One int64 key per image: `index` [B] -> [B]."""
    keys = fold_in(torch.tensor(seed, dtype=torch.int64, device=index.device), epoch)
    return fold_in(keys, index.to(torch.int64))


def fold_in(keys: Tensor, number: int | Tensor) -> Tensor:
    """New keys from `keys` and an integer (or integers that broadcast against them)."""
    return _splitmix64(keys + (torch.as_tensor(number) + 1) * _GOLDEN_64)  # a tensor, as its product wraps


def uniform(keys: Tensor, n: int) -> Tensor:
    """`n` float32 numbers in [0, 1) per key, in steps of 2^-24: [...] -> [..., n]; same bits on every device.

    Source: SplitMix64 (Steele, Lea & Flood 2014), its counter started at the key.
    """
    counter = torch.arange(1, n + 1, device=keys.device) * _GOLDEN_64
    bits = _splitmix64(keys[..., None] + counter)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24


def normal(keys: Tensor, n: int) -> Tensor:
    """`n` standard normal float32 numbers per key: [N] -> [N, n]; made for pixel noise, so 32 bits give two of them.

    Source: Box & Muller 1958 on a 32-bit integer hash (Wellons, "lowbias32"). Differs: 16 bits for radius and angle
    each, so that no number exceeds 4.86 in absolute value.
    """
    counter = torch.arange((n + 1) // 2, device=keys.device, dtype=torch.int32) * _GOLDEN_32
    bits = _lowbias32_(_shift_right(keys, 32).to(torch.int32)[:, None] + counter)
    radius = bits.bitwise_and(0xFFFF).to(torch.float32).add_(0.5).mul_(2.0**-16).log_().mul_(-2.0).sqrt_()
    angle = bits.bitwise_right_shift_(16).to(torch.float32).mul_(math.pi * 2.0**-15)
    return torch.cat([angle.cos().mul_(radius), angle.sin_().mul_(radius)], dim=1)[:, :n]


def _splitmix64(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    bits = (bits ^ _shift_right(bits, 27)) * (0x94D049BB133111EB - (1 << 64))
    return bits ^ _shift_right(bits, 31)


def _lowbias32_(bits: Tensor) -> Tensor:
    bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF)).mul_(0x846CA68B - (1 << 32))
    return bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Logical shift of int64; torch's own copies the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
