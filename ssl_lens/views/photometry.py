"""What a lens image may lose or gain without becoming another lens: seeing, noise, sky and flux.

All of it happens to light, so pixels must be linear in flux: not stretched yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_lens.transfer import sent
from ssl_lens.views.blur import gaussian_blur
from ssl_lens.views.policy import Sky, ViewKind
from ssl_lens.views.randomness import fold_in, normal, uniform


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
        flux_scale: factor on what is above the sky.
        psf_sigma_px: standard deviation of the Gaussian that widens the PSF.
        sky_offset, noise_ratio: in units of the noise of each image and channel.
    """

    flux_scale: Effect = Effect(0.9, 1.1, 0.5)
    psf_sigma_px: Effect = Effect(0.3, 0.8, 0.5)
    sky_offset: Effect = Effect(-0.2, 0.2, 0.5)
    noise_ratio: Effect = Effect(0.25, 1.0, 0.5)

    def __call__(self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind], sky: Sky) -> Tensor:
        """Changes `views` [V, B, C, s, s], contiguous, linear in flux, in place and returns them.

        Args:
            keys: int64 [V, B], on the CPU.
            kinds: one per view; all are treated alike, as a survey would.
            sky: level [C] and noise [V, B, C], in the units of the views.
        """
        images = views.view(-1, *views.shape[2:])
        keys = keys.flatten()
        noise = sky.noise.flatten(0, 1)
        strengths, chances = uniform(fold_in(keys, 0), 8).unflatten(1, (2, 4)).unbind(1)
        flux, sigma, offset, ratio = (
            effect.draw(strength, chance, neutral)
            for effect, strength, chance, neutral in zip(
                (self.flux_scale, self.psf_sigma_px, self.sky_offset, self.noise_ratio),
                strengths.unbind(1),
                chances.unbind(1),
                (1.0, 0.0, 0.0, 0.0),
                strict=True,
            )
        )
        level = (1 - flux)[:, None] * sky.level + offset[:, None] * noise

        # blur commutes with scale and offset, which therefore come together
        images.mul_(_per_image(flux, images)).add_(_per_image(level, images))
        change_rows_(images, sigma > 0, lambda rows, which: gaussian_blur(rows, sigma[which], self.psf_sigma_px.high))
        std = ratio[:, None] * noise
        change_rows_(images, ratio > 0, lambda rows, which: add_noise(rows, std[which], fold_in(keys[which], 1)))
        return views


def add_noise(images: Tensor, std: Tensor, keys: Tensor) -> Tensor:
    """Adds white Gaussian noise of standard deviation `std` [N] or [N, C] to images [N, C, H, W]."""
    pixels = normal(sent(keys, images.device), images[0].numel()).view_as(images)
    return pixels.mul_(_per_image(std, images)).add_(images)


def change_rows_(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replaces the images [N, ...] that `chosen` (bool [N], on the CPU) marks by change(those images, their places)."""
    which = chosen.nonzero()[:, 0]
    if len(which) == 0:
        return
    rows = sent(which, images.device)
    changed = change(images.index_select(0, rows), which)
    if images.device.type == "cpu":
        images.numpy()[which.numpy()] = changed.numpy()  # four times as fast as torch's own
    else:
        images.index_copy_(0, rows, changed)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """Numbers [N] or [N, C] made to broadcast against images [N, C, H, W]."""
    return sent(values, images.device).reshape(len(values), -1, 1, 1)
