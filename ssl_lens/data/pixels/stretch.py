"""How bright pixels are compressed: five stretches with limits fitted to a whole set, of each band or of all as one."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.errors import InputError

Kind: TypeAlias = Literal["none", "asinh", "log", "percentile", "zscale"]
Bands: TypeAlias = Literal["per_band", "joint"]

LOG_A = 1000.0  # of astropy's LogStretch by default
PERCENTILES = (0.5, 99.5)
ZSCALE_SAMPLES = 100_000  # pixels; IRAF's 1,000 are for one image, a set's limits should not scatter by a percent


class Stretch(nn.Module):
    """s = f(u) with u = (x - low_c) / scale_c for pixel x of channel c.

    none: u, with low 0 and scale 1. asinh: asinh(u), with low 0. log: log(1 + a max(u, 0)) / log(1 + a), a = 1000; not
    clipped above. percentile, zscale: u clipped to 0..1. `low` and `low + scale` are what becomes 0 and 1 in the last
    three.

    Shapes: [B, C, H, W] to the same.
    Units: low and scale are in those of the pixels; s has none but for "none".
    Raises: InputError for an unknown kind.
    Source: the log stretch is astropy.visualization.LogStretch. Differs: limits of the set, not of the image.
    """

    low: Tensor
    scale: Tensor

    def __init__(self, kind: Kind, low: list[float], scale: list[float]) -> None:
        super().__init__()
        _check(kind)
        assert len(low) == len(scale), "one low and one scale per channel"
        assert min(scale) > 0, "scales must be positive"
        self.kind = kind
        self._low, self._scale = list(low), list(scale)
        # The configuration is the one stored truth, so the buffers stay out of the state dict.
        self.register_buffer("low", per_channel(low), persistent=False)
        self.register_buffer("scale", per_channel(scale), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.curve(self.relative(images))

    def relative(self, images: Tensor) -> Tensor:
        """u of each pixel."""
        return images if self.kind == "none" else (images - self.low) / self.scale

    def curve(self, relative: Tensor) -> Tensor:
        """f(u), a new tensor but for "none"."""
        match self.kind:
            case "none":
                return relative
            case "asinh":
                return _asinh(relative)
            case "log":
                return relative.clamp_min(0).mul_(LOG_A).log1p_().div_(math.log1p(LOG_A))
            case "percentile" | "zscale":
                return relative.clamp(0, 1)

    def inverse(self, stretched: Tensor) -> Tensor:
        """Pixels that become `stretched`, which must lie in the stretch's range, or else become its nearest end."""
        match self.kind:
            case "asinh":
                relative = stretched.sinh()
            case "log":
                relative = (stretched * math.log1p(LOG_A)).expm1() / LOG_A
            case _:
                relative = stretched
        return self.low + self.scale * relative

    def config(self) -> dict[str, object]:
        """Constructor arguments, ready for JSON."""
        return {"kind": self.kind, "low": self._low, "scale": self._scale}


def no_stretch(channels: int) -> Stretch:
    return Stretch("none", [0.0] * channels, [1.0] * channels)


def fit_stretch(kind: Kind, bands: Bands, pixels: np.ndarray) -> Stretch:
    """Fits a stretch to pixels [N, C, H, W], which it wants all at once for their medians and percentiles.

    asinh: scale is the robust scatter, 1.4826 times the median absolute deviation (about the noise where sky fills most
    of the image, so sky stays linear and arcs are compressed); where more than half of the pixels are equal,
    that of the others. log and percentile: from the 0.5th to the 99.5th percentile. zscale: the limits of IRAF,
    by astropy. Limits without width (more than 99 % of the pixels are equal) become the lowest and the highest pixel.

    Args:
        bands: "per_band", or "joint" for one low and scale for all channels, which keeps the ratios of bands.
    Raises: InputError for an unknown kind, or if all pixels of a channel ("joint": of all) are equal.
    """
    _check(kind)
    channels = pixels.shape[1]
    if kind == "none":
        return no_stretch(channels)
    groups = [pixels.ravel()] if bands == "joint" else [pixels[:, channel].ravel() for channel in range(channels)]
    for channel, group in enumerate(groups):
        if group.min() == group.max():
            raise constant_channel(channel, group[0], bands)
    limits = [_fit(kind, group.astype(np.float64)) for group in groups]
    low, scale = zip(*(limits * channels if bands == "joint" else limits), strict=True)
    return Stretch(kind, list(low), list(scale))


def constant_channel(channel: int, value: float, bands: Bands) -> InputError:
    """The error for a channel of which nothing is left to standardise."""
    cut_off = ", or if it only lies outside the stretch's limits, set bands=per_band" if bands == "joint" else ""
    return InputError(f"channel {channel} of the images is constant ({value:g}); remove it from the files{cut_off}")


def per_channel(values: list[float]) -> Tensor:
    """[1, C, 1, 1], float32."""
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _asinh(values: Tensor) -> Tensor:
    """asinh to 1.2e-7 of its value, as torch's own, of which the one for processors takes four times as long."""
    if values.requires_grad or values.is_cuda or torch.compiler.is_compiling():
        return values.asinh()
    size = values.abs()
    root = size.hypot(size.new_ones(())).add_(1)
    return torch.div(size, root, out=root).mul_(size).add_(size).log1p_().copysign_(values)


def _check(kind: Kind) -> None:
    if kind not in get_args(Kind):
        raise InputError(f"stretch={kind!r} is unknown; set it to {', '.join(get_args(Kind))}")


def _fit(kind: Kind, pixels: np.ndarray) -> tuple[float, float]:
    """Low and scale of pixels [n] that are not all equal; for any kind but "none"."""
    match kind:
        case "asinh":
            return 0.0, robust_scatter(pixels)
        case "log" | "percentile":
            low, high = np.percentile(pixels, PERCENTILES)
        case "zscale":
            low, high = _zscale_limits(pixels)
    if high - low <= np.finfo(np.float32).eps * max(abs(low), abs(high)):  # float32 could not tell them apart
        low, high = pixels.min(), pixels.max()
    return float(low), float(high - low)


def robust_scatter(pixels: np.ndarray) -> float:
    """1.4826 times the median absolute deviation of pixels, not all equal: near the noise of the sky around a lens."""
    deviation = np.abs(pixels - np.median(pixels))
    # More than half of the pixels equal: a masked sky, or one quieter than the steps of an 8-bit picture. The others
    # say how far noise reaches; the standard deviation would be that of the arcs, and leave them as they are.
    return float(1.4826 * (np.median(deviation) or np.median(deviation[deviation > 0])))


def _zscale_limits(pixels: np.ndarray) -> tuple[float, float]:
    from astropy.visualization import ZScaleInterval  # an exported backbone does without astropy

    if len(pixels) > ZSCALE_SAMPLES:  # at random: astropy's even steps could fall on the same column of every image
        pixels = pixels[np.random.default_rng(0).integers(0, len(pixels), ZSCALE_SAMPLES)]
    return ZScaleInterval(n_samples=len(pixels)).get_limits(pixels)
