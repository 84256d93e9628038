"""From raw pixels to what a network sees: crop, bin, stretch, standardise; travels with the exported backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.errors import InputError

_CHUNK = 64  # images per step of a fit: bounds memory


class Preprocess(nn.Module):
    """Centre crop, mean-bin, stretch and standardise raw images; the same numbers for every image of a set.

    Pixel x of channel c becomes (s(x) - mean_c) / std_c with s(x) = x for stretch "none" and
    s(x) = asinh(x / softening_c) for "asinh". Nothing is taken from the single image, so flux and colour survive.

    Shapes: raw [B, C, H, W] of any real dtype to float32 [B, C, h, w], (h, w) = `output_size(H, W)`.
    Units: mean and std are those of the stretched pixels; softening is in raw pixel units.
    Raises: InputError if an image is smaller than the crop, its side is no multiple of `bin`, or C differs.
    """

    def __init__(
        self,
        center_crop: int | None,
        bin: int,
        stretch: Literal["none", "asinh"],
        softening: list[float] | None,
        mean: list[float],
        std: list[float],
    ) -> None:
        super().__init__()
        if stretch not in ("none", "asinh"):
            raise InputError(f"data.stretch={stretch!r} is unknown; set it to 'none' or 'asinh'")
        if bin < 1 or (center_crop is not None and center_crop < 1):
            raise InputError(f"data.bin={bin} and data.center_crop={center_crop} must be 1 or more")
        assert (softening is not None) == (stretch == "asinh"), "softening belongs to the asinh stretch"
        assert len(mean) == len(std) == len(softening or mean), "one mean, std and softening per channel"
        assert min(std + (softening or [])) > 0, "std and softening must be positive"
        self.center_crop, self.bin, self.stretch = center_crop, bin, stretch
        self._softening, self._mean, self._std = softening, list(mean), list(std)
        # The configuration is the one stored truth, so the buffers stay out of the state dict.
        self.register_buffer("softening", _per_channel(softening or [1.0] * len(mean)), persistent=False)
        self.register_buffer("mean", _per_channel(mean), persistent=False)
        self.register_buffer("std", _per_channel(std), persistent=False)

    @property
    def in_channels(self) -> int:
        return len(self._mean)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size in pixels of the image made from a raw image of `height` x `width` pixels."""
        crop = self.center_crop
        if crop is not None and crop > min(height, width):
            raise InputError(
                f"data.center_crop={crop} exceeds the images of {height}x{width} px; "
                f"set data.center_crop to {min(height, width)} or less"
            )
        height, width = (crop, crop) if crop is not None else (height, width)
        if height % self.bin or width % self.bin:
            raise InputError(
                f"data.bin={self.bin} does not divide {height}x{width} px; "
                f"set data.center_crop to a multiple of data.bin, such as {min(height, width) // self.bin * self.bin}"
            )
        return height // self.bin, width // self.bin

    def forward(self, raw: Tensor) -> Tensor:
        if raw.ndim != 4 or raw.shape[1] != self.in_channels:
            raise InputError(
                f"images of shape {tuple(raw.shape)} given; this preprocessing was fitted to "
                f"{self.in_channels}-channel images and takes [B, {self.in_channels}, H, W]"
            )
        images = _crop_and_bin(raw.float(), self.center_crop, *self.output_size(*raw.shape[-2:]), self.bin)
        if self.stretch == "asinh":
            images = torch.asinh(images / self.softening)
        return (images - self.mean) / self.std

    def config(self) -> dict[str, object]:
        """Constructor arguments, ready for JSON: `Preprocess(**config)` gives the same numbers."""
        return {
            "center_crop": self.center_crop,
            "bin": self.bin,
            "stretch": self.stretch,
            "softening": self._softening,
            "mean": self._mean,
            "std": self._std,
        }


def fit_preprocess(
    images: np.ndarray,
    *,
    center_crop: int | None,
    bin: int,
    stretch: Literal["none", "asinh"],
    limit: int = 4096,
) -> Preprocess:
    """Fits the statistics of `Preprocess` in float64 to at most `limit` evenly spaced images.

    The asinh softening is the robust scatter of the pixels, 1.4826 times their median absolute deviation: about
    the noise where sky fills most of the image, so sky stays linear and arcs are compressed.

    Args:
        images: raw pixels [N, C, H, W], memory-mapped or not.
        limit: images looked at; more change the statistics by less than their scatter.
    Raises:
        InputError: a channel that is constant over the whole set, or as `Preprocess`.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).round().astype(np.int64))
    channels = images.shape[1]
    binned_only = Preprocess(center_crop, bin, "none", None, [0.0] * channels, [1.0] * channels)

    def chunks(index: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(index), _CHUNK):
            raw = torch.from_numpy(images[index[start : start + _CHUNK]])
            yield binned_only(raw).numpy().astype(np.float64)

    softening = None
    if stretch == "asinh":
        few = chosen[:: -(-len(chosen) // 256)]  # a median needs all pixels at once; 256 images pin it down
        softening = _robust_scatter(np.concatenate(list(chunks(few))))
    means, variances = [], []
    for pixels in chunks(chosen):
        if softening is not None:
            pixels = np.arcsinh(pixels / np.asarray(softening)[:, None, None])
        means.append(pixels.mean(axis=(2, 3)))
        variances.append(pixels.var(axis=(2, 3)))
    mean = np.concatenate(means).mean(axis=0)
    # Law of total variance: no difference of large squares, so an offset far above the scatter does no harm.
    variance = np.concatenate(variances).mean(axis=0) + np.concatenate(means).var(axis=0)
    if not variance.all():
        channel = int(np.argmin(variance))
        raise InputError(f"channel {channel} of the images is constant ({mean[channel]:g}); remove it from the files")
    return Preprocess(center_crop, bin, stretch, softening, mean.tolist(), np.sqrt(variance).tolist())


@torch.no_grad()
def pixel_range(preprocess: Preprocess, images: np.ndarray, *, limit: int = 256) -> tuple[float, float]:
    """Lowest and highest pixel of at most `limit` evenly spaced images [N, C, H, W], once prepared."""
    chosen = np.unique(np.linspace(0, len(images) - 1, min(limit, len(images))).round().astype(np.int64))
    device = preprocess.mean.device
    parts = (
        preprocess(torch.from_numpy(images[chosen[i : i + _CHUNK]]).to(device)) for i in range(0, len(chosen), _CHUNK)
    )
    ends = torch.stack([torch.stack(part.aminmax()) for part in parts])
    return ends[:, 0].min().item(), ends[:, 1].max().item()


def _per_channel(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def _crop_and_bin(images: Tensor, crop: int | None, height: int, width: int, bin: int) -> Tensor:
    if crop is not None:
        top, left = (images.shape[-2] - crop) // 2, (images.shape[-1] - crop) // 2
        images = images[..., top : top + height * bin, left : left + width * bin]
    return F.avg_pool2d(images, bin) if bin > 1 else images


def _robust_scatter(pixels: np.ndarray) -> list[float]:
    deviation = np.abs(pixels - np.median(pixels, axis=(0, 2, 3), keepdims=True))
    scatter = 1.4826 * np.median(deviation, axis=(0, 2, 3))
    # More than half of the pixels equal (a masked sky, a saturated image): the plain scatter is what is left.
    return np.where(scatter > 0, scatter, pixels.std(axis=(0, 2, 3))).tolist()
