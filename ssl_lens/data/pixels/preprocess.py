"""From raw pixels to what a network sees: crop, fill, bin, stretch, standardise; travels with the exported backbone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.stretch import Bands, Kind, Stretch, constant_channel, fit_stretch, no_stretch, per_channel
from ssl_lens.errors import InputError

_CHUNK_PIXELS = 2**24  # per step of a fit: bounds memory
_MEDIAN_PIXELS = 2**24  # that a median, which needs all at once, is taken over; it is settled by far fewer
_DEFAULT_POLICY = PixelPolicy()


class Preprocess(nn.Module):
    """Crops, fills, mean-bins, stretches and standardises raw images; the same numbers for every image of a set.

    Pixel x of channel c becomes (s(x) - mean_c) / std_c with the stretch s. Nothing is taken from the single image, so
    flux survives, and colour where the channels share their numbers. NaN, infinite and `policy.mask_value` pixels
    become the sky of their channel first. What a telescope does to light goes in between: `linear`, then `stretched`.

    The crop is the central `center_crop` pixels, of which a border is cut as well where the sides are not multiples of
    `bin`, or once binned not of `multiple`, or larger than `largest`. Nothing is padded: a lens is centred, and a
    border without sky would be seen by the network. Where the border is odd, the centre is half a pixel to the end.

    Shapes: raw [B, C, H, W] of any real dtype to float32 [B, C, h, w], (h, w) = `output_size(H, W)`.
    Units: mean and std are those of the stretched pixels; sky is in raw pixel units.
    Raises: InputError if an image is smaller than the crop, or than one pixel once binned, or C differs.

    Attributes:
        center_crop: side in raw pixels; None for the whole image.
        multiple, largest: what the network takes, in binned pixels: see `fitted`.
        policy: how image files of other sets are to be read, so that they are like those of the fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        center_crop: int | None,
        bin: int,
        stretch: Stretch,
        *,
        mean: list[float],
        std: list[float],
        sky: list[float],
        policy: PixelPolicy = _DEFAULT_POLICY,
        multiple: int = 1,
        largest: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if bin < 1 or (center_crop is not None and center_crop < 1):
            raise InputError(f"bin={bin} and center_crop={center_crop} must be 1 or more")
        assert len(mean) == len(std) == len(sky) == stretch.low.shape[1], "one number each per channel"
        assert min(std) > 0, "std must be positive"
        assert multiple > 0, "sides are multiples of a number of pixels"
        assert largest is None or min(largest) > 0, "height and width"
        self.center_crop, self.bin, self.stretch, self.policy = center_crop, bin, stretch, policy
        self.multiple, self.largest = multiple, largest
        self._mean, self._std, self._sky = list(mean), list(std), list(sky)
        # The configuration is the one stored truth, so the buffers stay out of the state dict.
        self.register_buffer("mean", per_channel(mean), persistent=False)
        self.register_buffer("std", per_channel(std), persistent=False)

    @classmethod
    def plain(cls, channels: int, *, center_crop: int | None = None, bin: int = 1) -> Preprocess:
        """Crops and bins, and leaves the pixels what they are."""
        zeros, ones = [0.0] * channels, [1.0] * channels
        return cls(center_crop, bin, no_stretch(channels), mean=zeros, std=ones, sky=zeros)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """The preprocessing that `config()` describes, with the same numbers, before or after JSON.

        Raises: KeyError, TypeError or ValueError for anything else.
        """
        return cls(
            config["center_crop"],
            config["bin"],
            Stretch(**config["stretch"]),
            mean=config["mean"],
            std=config["std"],
            sky=config["sky"],
            policy=PixelPolicy.from_record(config["policy"]),
            multiple=config["multiple"],
            largest=None if config["largest"] is None else (config["largest"][0], config["largest"][1]),
        )

    def config(self) -> dict[str, object]:
        """Everything as plain numbers and names, ready for JSON."""
        return {
            "center_crop": self.center_crop,
            "bin": self.bin,
            "multiple": self.multiple,
            "largest": self.largest and list(self.largest),
            "stretch": self.stretch.config(),
            "mean": self._mean,
            "std": self._std,
            "sky": self._sky,
            "policy": dataclasses.asdict(self.policy),
        }

    @property
    def in_channels(self) -> int:
        return len(self._mean)

    def fitted(self, multiple: int, largest: tuple[int, int] | None) -> Preprocess:
        """The same for a network of which the sides of images are multiples, up to the largest height and width."""
        return Preprocess.from_config({**self.config(), "multiple": multiple, "largest": largest}).to(self.mean.device)

    def refitted(
        self,
        images: Images,
        *,
        center_crop: int | None = None,
        bin: int | None = None,
        stretch: Kind | None = None,
        policy: PixelPolicy | None = None,
    ) -> Preprocess:
        """The same steps with their numbers fitted to other raw images [N, C, H, W]; what bands share stays shared.

        Args:
            center_crop, bin, stretch: other ones, such as for another pixel scale; None: as they are.
            policy: how the images were read; None: as those before.

        Raises: InputError as `fit_preprocess`, and for other channels.
        """
        if images.shape[1] != self.in_channels:
            raise InputError(f"images of {images.shape[1]} channels given; the backbone takes {self.in_channels}")
        joint = self.in_channels > 1 and len(set(self._mean)) == len(set(self._std)) == 1
        fitted = fit_preprocess(
            images,
            center_crop=center_crop or self.center_crop,
            bin=bin or self.bin,
            stretch=stretch or self.stretch.kind,
            bands="joint" if joint else "per_band",
            policy=policy or self.policy,
        )
        return fitted.fitted(self.multiple, self.largest).to(self.mean.device)

    def widened(self, margin: int, height: int, width: int) -> tuple[Preprocess, int]:
        """The same with up to `margin` more pixels, once binned, on each side of the central crop; and how many.

        There are as many as raw images of `height` x `width` pixels have around the crop.
        """
        if self.center_crop is None:
            return self, 0
        margin = min(margin, (min(height, width) - self.center_crop) // (2 * self.bin))
        wide = {**self.config(), "center_crop": self.center_crop + 2 * margin * self.bin}
        return Preprocess.from_config(wide).to(self.mean.device), margin

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size in pixels of the image made from a raw image of `height` x `width` pixels."""
        crop, given = self.center_crop, f"{height}x{width} px"
        if crop is not None and crop > min(height, width):
            raise InputError(
                f"center_crop={crop} exceeds the images of {given}; set center_crop to {min(height, width)} or less"
            )
        sides = [(side if crop is None else crop) // self.bin for side in (height, width)]
        if not min(sides):
            raise InputError(f"bin={self.bin} leaves no pixel of {given}; set bin={min(height, width)} or less")
        if self.largest is not None:
            sides = [min(side, largest) for side, largest in zip(sides, self.largest, strict=True)]
        cut = [side // self.multiple * self.multiple for side in sides]
        if not min(cut):
            raise InputError(
                f"images of {given} become {sides[0]}x{sides[1]} px, but the network takes multiples of "
                f"{self.multiple} px; give larger images or another network"
            )
        return cut[0], cut[1]

    def forward(self, raw: Tensor) -> Tensor:
        return self.stretched(self.linear(raw))

    def linear(self, raw: Tensor) -> Tensor:
        """Raw images, cropped, filled and binned, in pixels that are linear in flux: see `unit`."""
        if raw.ndim != 4 or raw.shape[1] != self.in_channels:
            raise InputError(
                f"images of shape {tuple(raw.shape)} given; this preprocessing was fitted to "
                f"{self.in_channels}-channel images and takes [B, {self.in_channels}, H, W]"
            )
        images = self._filled(self._cropped(raw).float())
        return self._relative(F.avg_pool2d(images, self.bin) if self.bin > 1 else images)

    def stretched(self, linear: Tensor) -> Tensor:
        """What a network sees of linear pixels [..., C, h, w]."""
        if self.stretch.kind == "none":
            return linear
        return self.stretch.curve(linear).sub_(self.mean).div_(self.std)  # in place, as it is done to every view

    @property
    def unit(self) -> Tensor:
        """Flux of one unit of the linear pixels [C]: the stretch's scale, or without one the standard deviation."""
        return (self.std if self.stretch.kind == "none" else self.stretch.scale).flatten()

    @property
    def linear_sky(self) -> Tensor:
        """The sky in linear pixels [C]."""
        return self._relative(per_channel(self._sky).to(self.mean)).flatten()

    def _relative(self, images: Tensor) -> Tensor:
        """Linear pixels, of order 1 and near 0 in the sky, where float32 resolves them best."""
        return (images - self.mean) / self.std if self.stretch.kind == "none" else self.stretch.relative(images)

    def _cropped(self, images: Tensor) -> Tensor:
        """The central pixels of raw images that `output_size` is made of."""
        height, width = (side * self.bin for side in self.output_size(*images.shape[-2:]))
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        return images[..., top : top + height, left : left + width]

    def _filled(self, images: Tensor) -> Tensor:
        """Sky for flagged pixels, band by band, since `nan_to_num` takes one number and a tenth of `where`'s time."""
        if self.policy.mask_value is not None:
            images = images.masked_fill(images == float(np.float32(self.policy.mask_value)), math.nan)
        bands = [band.nan_to_num(sky, sky, sky) for band, sky in zip(images.split(1, dim=1), self._sky, strict=True)]
        return torch.cat(bands, dim=1) if len(bands) > 1 else bands[0]


def fit_preprocess(
    images: Images,
    *,
    center_crop: int | None,
    bin: int,
    stretch: Kind,
    bands: Bands = "per_band",
    policy: PixelPolicy = _DEFAULT_POLICY,
    limit: int = 4096,
) -> Preprocess:
    """Fits the numbers of `Preprocess` in float64 to at most `limit` evenly spaced images.

    Limits of the stretch and sky, the median of the raw pixels, come from at most 256 of these.

    Args:
        images: raw pixels [N, C, H, W] without flagged ones, in memory or on disk.
        bands: "per_band", or "joint" for one stretch, mean and std for all channels: ratios of bands survive.
        policy: how the images were read. Where sizes are cropped or padded without a given size, theirs is kept.
        limit: images looked at; more change the statistics by less than their scatter.
    Raises:
        InputError: a channel that is constant over the whole set, or as `Preprocess` and `fit_stretch`.
    """
    plain = Preprocess.plain(images.shape[1], center_crop=center_crop, bin=bin)
    chosen = evenly_spaced(len(images), limit)
    sample = few_images(images, limit)
    sky = [float(np.median(sample[:, channel])) for channel in range(images.shape[1])]
    fitted_stretch = fit_stretch(stretch, bands, plain(torch.from_numpy(sample)).numpy())
    means, variances, lowest, highest = [], [], [], []
    for index in in_chunks(chosen, images):
        pixels = fitted_stretch(plain(torch.from_numpy(images[index])).double()).numpy()
        means.append(pixels.mean(axis=(2, 3)))
        variances.append(pixels.var(axis=(2, 3)))
        lowest.append(pixels.min(axis=(0, 2, 3)))
        highest.append(pixels.max(axis=(0, 2, 3)))
    for channel in np.flatnonzero(np.min(lowest, axis=0) == np.max(highest, axis=0)):
        raise constant_channel(int(channel), sky[channel], bands)
    axis = 0 if bands == "per_band" else None
    mean = np.concatenate(means).mean(axis)
    # Law of total variance: no difference of large squares, so an offset far above the scatter does no harm.
    std = np.sqrt(np.concatenate(variances).mean(axis) + np.concatenate(means).var(axis))
    if policy.sizes != "refuse" and policy.size is None:
        policy = dataclasses.replace(policy, size=(images.shape[2], images.shape[3]))
    mean, std = (np.broadcast_to(values, images.shape[1]).tolist() for values in (mean, std))
    return Preprocess(center_crop, bin, fitted_stretch, mean=mean, std=std, sky=sky, policy=policy)


def few_images(images: Images, limit: int = 256) -> np.ndarray:
    """At most `limit`, and 256, evenly spaced raw images [n, C, H, W] in memory: enough for a median."""
    most = min(limit, 256, max(16, _MEDIAN_PIXELS // images[0].size))
    return np.asarray(images[evenly_spaced(len(images), most)], np.float32)


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the indices from 0 to `count` - 1, int64."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def in_chunks(index: np.ndarray, images: Images) -> Iterator[np.ndarray]:
    """Parts of an index, of at most 64 images."""
    size = min(64, max(1, _CHUNK_PIXELS // images[0].size))
    return (index[start : start + size] for start in range(0, len(index), size))
