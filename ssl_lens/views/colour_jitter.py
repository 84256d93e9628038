"""The reference's ImageNet augmentations in batches: colour jitter, grey, blur, solarisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_lens.transfer import sent
from ssl_lens.views.blur import gaussian_blur
from ssl_lens.views.photometry import change_rows_
from ssl_lens.views.policy import ViewKind
from ssl_lens.views.randomness import uniform

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision and PIL


@dataclass(frozen=True)
class ColourJitter:
    """DINO's photometric augmentations; pixels are shown between black (0) and white (1), as in an 8-bit picture.

    Images that are not of three channels have no colour: saturation, hue and grey leave them alone.

    Attributes:
        black, white: standardised pixel values, per channel or one for all, that count as 0 and 1; beyond is cut.
        brightness, contrast, saturation: factors are drawn evenly from 1 -+ this.
        hue: shift drawn evenly from -+ this, in turns.
        jitter_probability, grey_probability: for every view.
        blur_probability, solarize_probability: for the first global, the other global and the local views.
        blur_sigma_px: range of the blur.

    Source: DINO (Caron et al. 2021), DataAugmentationDINO. Differs: brightness, contrast, saturation and hue always
    come in this order, and pixels are not rounded to 8 bits.
    """

    black: tuple[float, ...] = (-2.0,)
    white: tuple[float, ...] = (2.0,)
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    blur_probability: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    solarize_probability: tuple[float, float, float] = (0.0, 0.2, 0.0)

    def __call__(self, views: Tensor, keys: Tensor, kinds: Sequence[ViewKind]) -> Tensor:
        """Changes `views` [V, B, C, s, s], contiguous, in place and returns them.

        Args:
            keys: int64 [V, B], on the CPU.
            kinds: one per view.
        """
        images = views.view(-1, *views.shape[2:])
        black = sent(torch.tensor(self.black), images.device)[:, None, None]
        span = sent(torch.tensor(self.white), images.device)[:, None, None] - black
        images.sub_(black).div_(span).clamp_(0, 1)

        draws = uniform(keys.flatten(), 9)
        chance, strength = draws[:, :4].unbind(1), draws[:, 4:]
        blur_probability = torch.tensor([self.blur_probability[k] for k in kinds]).repeat_interleave(keys.shape[1])
        solar_probability = torch.tensor([self.solarize_probability[k] for k in kinds]).repeat_interleave(keys.shape[1])

        # neutral factors rather than a selection: four in five views are jittered, and gathering them costs more
        factors = (2 * strength[:, :4] - 1).where(chance[0][:, None] < self.jitter_probability, 0.0)
        self._jitter_(images, sent(factors, images.device))
        if images.shape[1] == 3:
            change_rows_(images, chance[1] < self.grey_probability, lambda rows, _: to_grey(rows).expand_as(rows))
        low, high = self.blur_sigma_px
        sigma = low + (high - low) * strength[:, 4]
        change_rows_(images, chance[2] < blur_probability, lambda rows, which: gaussian_blur(rows, sigma[which], high))
        change_rows_(images, chance[3] < solar_probability, lambda rows, _: solarize(rows))
        images.mul_(span).add_(black)
        return views

    def _jitter_(self, images: Tensor, draws: Tensor) -> None:
        """`draws` [N, 4] in -+1, scaled here to the ranges of brightness, contrast, saturation and hue."""
        brightness, contrast, saturation, hue = draws[:, :, None, None, None].unbind(1)
        adjust_brightness_(images, 1 + self.brightness * brightness)
        adjust_contrast_(images, 1 + self.contrast * contrast)
        if images.shape[1] == 3:
            adjust_saturation_(images, 1 + self.saturation * saturation)
            adjust_hue_(images, self.hue * hue)


def adjust_brightness_(images: Tensor, factor: Tensor) -> None:
    images.mul_(factor).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> None:
    """Blends with the mean grey of each image."""
    mean = to_grey(images).mean((1, 2, 3), keepdim=True)
    images.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def adjust_saturation_(images: Tensor, factor: Tensor) -> None:
    """Blends with the grey image."""
    grey = to_grey(images).mul_(1 - factor)
    images.mul_(factor).add_(grey).clamp_(0, 1)


def adjust_hue_(images: Tensor, shift: Tensor) -> None:
    """Turns the hue of RGB images [N, 3, H, W] by `shift` turns (at most half of one); HSV's V and S stay.

    HSV's six cases cost more than all the rest of the jitter, so do without. With (r, g, b) = (RGB - min) / chroma
    and the hue counted in sixths of a turn from cyan,
        hue = copysign(2 + r - g - b, b - g)
        1 - r, g, b = clamp(||hue + (0, 1, -1)| - 3| - 1, 0, 1)
    where the inner absolute value less 3 wraps the circle.
    """
    red, green, blue = images.unbind(1)
    lowest = torch.minimum(red, green).minimum(blue)
    chroma = torch.maximum(red, green).maximum(blue).sub_(lowest)
    hue = (red - green).sub_(blue).add_(lowest).div_(chroma.clamp_min(1e-12)).add_(2)
    hue.copysign_(blue - green).add_(6 * shift[:, 0])
    from_cyan = sent(torch.tensor([0.0, 1.0, -1.0]), images.device)[:, None, None]
    torch.add(hue[:, None], from_cyan, out=images).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    red.neg_().add_(1)
    images.mul_(chroma[:, None]).add_(lowest[:, None])


def to_grey(images: Tensor) -> Tensor:
    """Luma of RGB images, the channels' mean of others: [N, C, H, W] -> [N, 1, H, W]."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def solarize(images: Tensor) -> Tensor:
    """Inverts what is brighter than the middle."""
    return torch.where(images >= 0.5, 1 - images, images)
