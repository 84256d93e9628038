"""Harmonic network: convolutions with circular harmonics, whose responses turn with the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.options import Bounds, Count, Counts, Family, Options
from ssl_lens.backbones.steerable.fields import AntialiasedDownsample
from ssl_lens.errors import InputError

ORDERS = 2  # streams of rotation order 0 and 1
BANDWIDTH = 0.5  # px; standard deviation of the Gaussians between ring and pixel grid
MAGNITUDE_EPS = 1e-4  # |x| has no gradient at 0


class HarmonicConv2d(nn.Module):
    """Cross-correlation with W_m(r, phi) = R(r) exp(i (m phi + beta)) from streams of orders q to those of orders p.

    The filter between two streams has m = p - q, so that on an image turned by an angle a stream of order p turns and
    gains the phase exp(i p angle). R and beta are learnt for |m| = 0, 1; W_-m is the conjugate of W_m.

    Shapes: channels are [order, real and imaginary part, channel] in this nesting: [B, orders * 2 * in, H, W], or
    [B, in, H, W] of real images, to [B, 2 * 2 * out, H, W]; zero padding.
    Source: Worrall et al. 2017. Differs: rings end at half the kernel's side; a ring's harmonic has unit
    norm, so that a profile has the scale of an ordinary filter; ports of their code drop sin(beta) for m = 0.
    """

    harmonics: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, rings: int, real_input: bool, phases: bool
    ) -> None:
        super().__init__()
        self.real_input = real_input
        self.padding = kernel_size // 2
        fan_in = in_channels * rings * (1 if real_input else ORDERS)
        self.profile = nn.Parameter(torch.randn(ORDERS, rings, out_channels, in_channels) * fan_in**-0.5)
        shape = ORDERS, out_channels, in_channels, 1, 1
        self.phase = nn.Parameter(torch.rand(shape) * 2 * math.pi) if phases else None
        harmonics = torch.stack([_ring_harmonics(kernel_size, rings, order) for order in range(ORDERS)])
        self.register_buffer("harmonics", harmonics, persistent=False)

    def filter(self) -> Tensor:
        """The filter [2 * 2 * out, orders * 2 * in, k, k] of the whole layer between real channels."""
        with torch.autocast(self.profile.device.type, enabled=False):  # rounding the filter would break the symmetry
            real, imaginary = torch.einsum(
                "mroi,mrckl->cmoikl", self.profile, self.harmonics.to(self.profile.dtype)
            ).unbind(0)
            if self.phase is not None:
                cos, sin = self.phase.cos(), self.phase.sin()
                real, imaginary = cos * real - sin * imaginary, sin * real + cos * imaginary
            rows = []
            for order in range(ORDERS):
                if self.real_input:
                    rows += [real[order], imaginary[order]]
                    continue
                blocks = []
                for m in (order - in_order for in_order in range(ORDERS)):
                    blocks.append((real[m], imaginary[m]) if m >= 0 else (real[-m], -imaginary[-m]))
                rows.append(torch.cat([part for re, im in blocks for part in (re, -im)], dim=1))
                rows.append(torch.cat([part for re, im in blocks for part in (im, re)], dim=1))
            return torch.cat(rows, dim=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter(), padding=self.padding)


class Bias(nn.Module):
    """Adds a learnt number to each channel [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((channels, 1, 1), 0.01))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class MagnitudeReLU(nn.Module):
    """x / |x| * ReLU(shift(|x|)): the phases stay, so the streams keep their orders.

    Source: C-ReLU (shift is a bias) and batch norm on magnitudes of Worrall et al. 2017.
    """

    def __init__(self, shift: nn.Module) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        size = _magnitude(x)
        gain = (F.relu(self.shift(size)) / size).unflatten(1, (ORDERS, 1, -1))
        return (x.unflatten(1, (ORDERS, 2, -1)) * gain).flatten(1, 3)


@dataclass(frozen=True)
class HarmonicNetOptions(Options):
    """Options of a harmonic network.

    Attributes:
        widths: complex channels per rotation order of each block.
        embed_dim: width of the features, even: half from either order.
        kernel_size: side of the filters, px, odd and 3 or more.
        rings: samples of the radial profiles.

    Raises: InputError if there is no block, embed_dim is odd or kernel_size even, or as `Options`.
    """

    widths: Counts = (8, 16, 35)
    embed_dim: Annotated[int, Bounds(2)] = 64
    kernel_size: Annotated[int, Bounds(3, 64)] = 5
    rings: Count = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.widths:
            raise InputError("widths=[] of the HarmonicNet is empty; give the width of one block or more")
        if self.embed_dim % 2:
            raise InputError(f"embed_dim={self.embed_dim} of the HarmonicNet does not halve; use an even number")
        if not self.kernel_size % 2:
            raise InputError(f"kernel_size={self.kernel_size} of the HarmonicNet has no centre; use 3, 5, 7, ...")


class HarmonicNet(MapBackbone):
    """Harmonic network of blocks of two convolutions, each block on a map half as large as the one before.

    Quarter turns of the image turn the maps exactly: the view changes by rounding only, 1e-7 of its norm. Other angles
    are met up to the sampling of filters and maps: 45 degrees change an untrained network's view of smooth blobs by 1 %
    in the mean. The regions are the magnitudes of a last convolution's streams, those of order 0 before those of order
    1; stage maps are magnitudes too. There is nothing to fold: expanding the filters takes 1 % of a forward pass.

    Source: Worrall et al. 2017, their network for rotated MNIST (8 channels growing by 2.1 a block, 5x5 filters, 4
    rings, C-ReLU and magnitude batch norm in turn). Differs: the last convolution maps to features, not classes; their
    classifier's mean over orders is left to a linear layer; antialiased halving, also before the last convolution,
    instead of 2x2 means, exact on odd maps; batch norm with torch's momentum; and as in `HarmonicConv2d`.
    """

    options_type = HarmonicNetOptions
    options: HarmonicNetOptions

    def __init__(self, in_channels: int, options: HarmonicNetOptions = HarmonicNetOptions()) -> None:
        """Builds the network with random weights."""
        widths, kernel_size, rings = options.widths, options.kernel_size, options.rings
        super().__init__(in_channels, options.embed_dim, 2 ** len(widths))
        self.options = options
        self.blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[i - 1] if i else in_channels
            self.blocks.append(
                nn.Sequential(
                    HarmonicConv2d(before, width, kernel_size, rings, real_input=i == 0, phases=True),
                    MagnitudeReLU(Bias(ORDERS * width)),
                    HarmonicConv2d(width, width, kernel_size, rings, real_input=False, phases=True),
                    MagnitudeReLU(nn.BatchNorm2d(ORDERS * width, eps=1e-3)),
                )
            )
        self.downsample = AntialiasedDownsample()
        # without phases, as the authors' last layer: only magnitudes follow
        self.last = HarmonicConv2d(
            widths[-1], options.embed_dim // 2, kernel_size, rings, real_input=False, phases=False
        )

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        x = images
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(_magnitude(x))
            x = self.downsample(x)
        return [*maps, _magnitude(self.last(x))]


def _magnitude(x: Tensor) -> Tensor:
    """Magnitudes [B, orders * C, H, W] of streams [B, orders * 2 * C, H, W]."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # float16 would lose the eps
    return (wide.unflatten(1, (ORDERS, 2, -1)).square().sum(dim=2) + MAGNITUDE_EPS).sqrt().flatten(1, 2).to(x.dtype)


def _ring_harmonics(kernel_size: int, rings: int, order: int) -> Tensor:
    """exp(i order phi) on each ring, spread to the pixels [rings, 2, k, k] (real, imaginary), each of norm 1.

    phi runs from the rows' direction x to the columns' direction y, as in an image. Order 1 has no ring at the centre.
    """
    samples = 8 * math.ceil(max(math.pi * kernel_size, 100) / 8)  # a multiple of 4, so that quarter turns are exact
    phi = torch.arange(samples, dtype=torch.float64) * (2 * math.pi / samples)
    radii = torch.linspace(min(order, 1), kernel_size / 2, rings, dtype=torch.float64)
    pixels = torch.arange(kernel_size, dtype=torch.float64) - kernel_size // 2
    along_x = (-0.5 * ((radii[:, None, None] * phi.cos()[:, None] - pixels) / BANDWIDTH) ** 2).exp()
    along_y = (-0.5 * ((radii[:, None, None] * phi.sin()[:, None] - pixels) / BANDWIDTH) ** 2).exp()
    weights = along_y[..., :, None] * along_x[..., None, :]  # [rings, samples, k, k]
    weights = weights / weights.sum(dim=(2, 3), keepdim=True)
    wave = torch.stack([(order * phi).cos(), (order * phi).sin()])
    harmonics = torch.einsum("cn,rnkl->rckl", wave, weights)
    return harmonics / harmonics.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


VARIANTS = {"harmonic_net": HarmonicNetOptions()}
FAMILY = Family(HarmonicNet, VARIANTS)
