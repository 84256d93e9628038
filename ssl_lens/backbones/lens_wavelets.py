"""Wavelets in the frame of the lens: a backbone without parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers.lens_frame import HARMONICS, direction_cosines
from ssl_lens.backbones.options import Count, Family, Options
from ssl_lens.backbones.steerable.fields import AntialiasedDownsample
from ssl_lens.errors import InputError

ORIENTATIONS = 8  # of 180°
SIGMA_PX, FREQUENCY = 0.8, 0.75 * math.pi  # of octave 0, radians per px
SLANT = 0.5  # width along the wave over the length across it
REACH = 3  # standard deviations
SMALLEST = 1e-12  # added under the square root of a modulus, whose slope at 0 would be infinite
FINEST_OCTAVES = 2  # on the image itself, each further one on a map half as large


@dataclass(frozen=True)
class LensWaveletsOptions(Options):
    """Options of `LensWavelets`.

    Attributes:
        octaves: scales of the wavelets, each twice as wide as the one before.

    Raises: InputError for more than 6 octaves, or as `Options`.
    """

    octaves: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.octaves > 6:
            raise InputError(f"octaves={self.octaves} are wider than any cutout; use 6 or fewer")


class LensWavelets(MapBackbone):
    """How strongly an image oscillates at each scale, by orientation relative to the lens; nothing is learned.

    Each band goes through Morlet wavelets of `octaves` scales (sigma 0.8, 1.6, ... px, 0.375 cycles per px and
    downwards) and 8 orientations theta. Of their moduli m, each pixel keeps the means over theta of
    m cos(2 k (theta - phi)), k = 0, 1, 2, where phi is its direction from the middle of the image: all structure, what
    is radial against what is tangential (arcs), and what is oblique. Turns by 90 degrees and flips of the image turn
    and flip the maps, to rounding, at any size. Pooled in rings, in which orientation no longer matters, they are the
    features to be measured (`log_rings`, 156 numbers of a band at 48 px or more).

    Octaves 0 and 1 and the image itself are maps of the size of the image, every further octave one half as large as
    that before, so that its filters need no more pixels: the filter of octave 1 on an antialiased, halved image.

    Source: Morlet wavelets as in scattering networks (Bruna & Mallat 2013), of first order; the harmonics relative to
    the lens and the rings are ours.
    """

    options_type = LensWaveletsOptions
    options: LensWaveletsOptions

    def __init__(self, in_channels: int, options: LensWaveletsOptions = LensWaveletsOptions()) -> None:
        """Builds the filters; they are functions of the options, and not in the state dict."""
        coarser = max(0, options.octaves - FINEST_OCTAVES)
        last = HARMONICS if coarser else 1 + HARMONICS * options.octaves
        super().__init__(in_channels, in_channels * last, 2**coarser)
        self.maps_of_a_band = 1 + HARMONICS * options.octaves  # of all stages
        self.options = options
        self.halve = AntialiasedDownsample()
        for octave in range(min(FINEST_OCTAVES, options.octaves)):
            self.register_buffer(f"filters{octave}", morlets(octave), persistent=False)

    def stages(self, images: Tensor) -> list[Tensor]:
        """Maps [B, 7 C, H, W] (of fewer octaves less) and [B, 3 C, h, w] of each further octave; float32 or finer.

        Channels of a map are grouped by band: the band itself, in the first, then 3 harmonics per octave.
        """
        self.check_images(images)
        with torch.autocast(images.device.type, enabled=False):  # rounded to bfloat16 nothing would commute with turns
            return self._stages(images.to(torch.promote_types(images.dtype, torch.float32)))

    def _stages(self, images: Tensor) -> list[Tensor]:
        bands = images.flatten(0, 1)[:, None]  # [B C, 1, H, W]
        finest = range(min(FINEST_OCTAVES, self.options.octaves))
        maps = [torch.cat([bands, *(self._octave(bands, octave) for octave in finest)], dim=1)]
        for _ in range(FINEST_OCTAVES, self.options.octaves):
            bands = F.pad(self.halve(F.pad(bands, (2, 2, 2, 2), mode="replicate")), (-1, -1, -1, -1))
            maps.append(self._octave(bands, FINEST_OCTAVES - 1))
        return [each.unflatten(0, images.shape[:2]).flatten(1, 2) for each in maps]

    def _octave(self, bands: Tensor, octave: int) -> Tensor:
        """Harmonics [B C, 3, h, w] of the moduli of one octave's wavelets."""
        filters = self.get_buffer(f"filters{octave}").to(bands)
        border = filters.shape[-1] // 2
        waves = F.conv2d(F.pad(bands, (border,) * 4, mode="replicate"), filters).unflatten(1, (ORIENTATIONS, 2))
        moduli = (waves.square().sum(dim=2) + SMALLEST).sqrt()
        # cos 2k (theta - phi) = cos 2k theta cos 2k phi + sin 2k theta sin 2k phi, so that no map is made per theta
        height, width = bands.shape[2:]
        cosine, sine = (part.to(bands) for part in direction_cosines(height, width, 2 * HARMONICS - 1))
        angles = torch.arange(ORIENTATIONS, device=bands.device) * (math.pi / ORIENTATIONS)
        turns = 2 * torch.arange(HARMONICS, device=bands.device)[:, None] * angles
        along, across = (
            torch.einsum("bohw,ko->bkhw", moduli, weights.to(bands) / ORIENTATIONS)
            for weights in (turns.cos(), turns.sin())
        )
        return along * cosine[::2] + across * sine[::2]


def morlets(octave: int) -> Tensor:
    """Real and imaginary parts of the wavelets of an octave, [16, 1, side, side], float32, orientation by orientation.

    A wave of orientation theta runs along (cos theta, sin theta), y upwards; each sums to 0.
    """
    sigma, frequency = SIGMA_PX * 2**octave, FREQUENCY / 2**octave
    reach = math.ceil(REACH * sigma / SLANT)
    right = torch.arange(-reach, reach + 1, dtype=torch.float64)
    up = -right[:, None]
    made = []
    for orientation in range(ORIENTATIONS):
        angle = math.pi * orientation / ORIENTATIONS
        along, across = math.cos(angle) * right + math.sin(angle) * up, math.cos(angle) * up - math.sin(angle) * right
        envelope = torch.exp(-(along.square() + (SLANT * across).square()) / (2 * sigma**2))
        envelope = envelope / envelope.sum()
        wave = torch.polar(torch.ones_like(along), frequency * along)
        wavelet = envelope * (wave - (envelope * wave).sum())
        made += [wavelet.real, wavelet.imag]
    return torch.stack(made)[:, None].float()


VARIANTS = {"lens_wavelets": LensWaveletsOptions()}
FAMILY = Family(LensWavelets, VARIANTS)
