"""What a lens image may lose or gain without becoming another lens: seeing, noise, sky and flux.

Standardised pixels are assumed, so that amplitudes are in units of the data set's standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lens.views.blur import gaussian_blur
from ssl_lens.views.randomness import fold_in, normal, uniform


class ViewKind(IntEnum):
    """Place of a view among the views of its image; an effect may be more likely in one than in another."""

    FIRST_GLOBAL = 0
    OTHER_GLOBAL = 1
    LOCAL = 2


class Effect(NamedTuple):
    """A strength drawn evenly from [low, high], applied to a view with the given probability."""

    low: float
    high: float
    probability: float

    def draw(self, strength: Tensor, chance: Tensor, neutral: float) -> Tensor:
        """Strengths from two draws in [0, 1); `neutral` where the effect does not apply."""
        drawn = self.low + (self.high - self.low) * strength
        return torch.where(chance < self.probability, drawn, neutral)


@dataclass(frozen=True)
class Photometry:
    """In this order: flux x scale, PSF blur (flux kept), sky level + offset, white noise.

    Attributes:
        flux_scale: factor on the standardised pixels.
        psf_sigma_px: standard deviation of the Gaussian that widens the PSF.
        sky_offset, noise_std: in units of the data set's standard deviation.
        noise_ratio: in units of the image's own noise, in the place of noise_std where that is known.
    """

    flux_scale: Effect = Effect(0.9, 1.1, 0.5)
    psf_sigma_px: Effect = Effect(0.3, 0.8, 0.5)
    sky_offset: Effect = Effect(-0.1, 0.1, 0.5)
    noise_std: Effect = Effect(0.02, 0.15, 0.5)
    noise_ratio: Effect = Effect(0.25, 1.0, 0.5)

    def __call__(self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind], noise: Tensor | None = None) -> Tensor:
        """Changes `views` [V, B, C, s, s], contiguous, in place and returns them.

        Args:
            keys: int64 [V, B], on the CPU.
            kinds: one per view; all are treated alike, as a survey would.
            noise: standard deviation of the noise in each image and channel [B, C], on the CPU; None: not known.
        """
        images = views.view(-1, *views.shape[2:])
        keys = keys.flatten()
        strengths, chances = uniform(fold_in(keys, 0), 8).unflatten(1, (2, 4)).unbind(1)
        effects = zip(
            (
                self.flux_scale,
                self.psf_sigma_px,
                self.sky_offset,
                self.noise_std if noise is None else self.noise_ratio,
            ),
            strengths.unbind(1),
            chances.unbind(1),
            (1.0, 0.0, 0.0, 0.0),
            strict=True,
        )
        flux, sigma, sky, added = (effect.draw(*draws) for effect, *draws in effects)
        std = added if noise is None else added[:, None] * noise.repeat(len(views), 1)

        # blur commutes with scale and offset, which therefore come together
        images.mul_(_per_image(flux, images)).add_(_per_image(sky, images))
        change_rows_(images, sigma > 0, lambda rows, which: gaussian_blur(rows, sigma[which], self.psf_sigma_px.high))
        change_rows_(images, added > 0, lambda rows, which: add_noise(rows, std[which], fold_in(keys[which], 1)))
        return views


def add_noise(images: Tensor, std: Tensor, keys: Tensor) -> Tensor:
    """Adds white Gaussian noise of standard deviation `std` [N] or [N, C] to images [N, C, H, W]."""
    pixels = normal(keys.to(images.device), images[0].numel()).view_as(images)
    return pixels.mul_(_per_image(std, images)).add_(images)


def change_rows_(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replaces the images [N, ...] that `chosen` (bool [N], on the CPU) marks by change(those images, their places)."""
    which = chosen.nonzero()[:, 0]
    if len(which) == 0:
        return
    rows = which.to(images.device)
    changed = change(images.index_select(0, rows), which)
    if images.device.type == "cpu":
        images.numpy()[which.numpy()] = changed.numpy()  # four times as fast as torch's own
    else:
        images.index_copy_(0, rows, changed)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """Numbers [N] or [N, C] made to broadcast against images [N, C, H, W]."""
    return values.to(images.device).reshape(len(values), -1, 1, 1)
