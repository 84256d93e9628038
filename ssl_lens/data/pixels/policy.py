"""Which planes of files are pixels of an image, and what is done to them before it is packed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_lens.data.folders.layouts import Sizes
from ssl_lens.data.formats.planes import Names, PlaneChoice, are_names
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class PixelPolicy:
    """Which planes are read, and how flagged pixels and unequal sizes are treated.

    Attributes:
        mask_value: pixels of exactly this value (as float32) are flagged, as are NaN and infinite ones; None for none.
        max_masked: an image with more than this fraction of a channel flagged is unusable.
        sizes: what to do with images of unequal height or width: "refuse", "crop" all to the smallest height and
            width of the set, or "pad" all to the largest; around the centre.
        size: (height, width) in pixels to crop or pad to, instead of the smallest or largest.
        planes, noise, mask: which planes of files, or which bands of folders, are the channels, their noise and their
            masks, as in `PlaneChoice`.
    """

    mask_value: float | None = None
    max_masked: float = 0.1
    sizes: Sizes = "refuse"
    size: tuple[int, int] | None = None
    planes: Names = ()
    noise: Names = ()
    mask: Names = ()

    def __post_init__(self) -> None:
        if self.sizes not in ("refuse", "crop", "pad"):
            raise InputError(f"sizes={self.sizes!r} is unknown; set it to refuse, crop or pad")
        if not 0 <= self.max_masked < 1:
            raise InputError(f"max_masked={self.max_masked} is not a fraction; set it to 0 or more and below 1")
        for name in ("planes", "noise", "mask"):
            if not are_names(names := getattr(self, name)):
                raise InputError(
                    f"{name}={list(names)} is not a list of names and numbers from 0; give such as VIS or 1"
                )
        if self.size is not None and (self.sizes == "refuse" or min(self.size) < 1):
            raise InputError(
                f"size={self.size[0]}x{self.size[1]} with sizes={self.sizes!r}; "
                "give 1 or more with sizes=crop or sizes=pad"
            )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> PixelPolicy:
        """The policy whose `dataclasses.asdict` was kept as JSON."""
        mask_value, max_masked, size = record["mask_value"], record["max_masked"], record["size"]
        if not all(type(number) in (int, float) for number in (0.0 if mask_value is None else mask_value, max_masked)):
            raise TypeError(f"mask_value={mask_value!r:.50} and max_masked={max_masked!r:.50} should be numbers")
        if size is not None and [type(side) for side in size] != [int, int]:
            raise TypeError(f"size={size!r:.50} should be a height and a width")
        names = [tuple(record[name]) for name in ("planes", "noise", "mask")]
        if not all(type(name) in (int, str) for name in sum(names, ())):
            raise TypeError(f"planes, noise and mask {names!r:.50} should be names or numbers")
        size = None if size is None else tuple(size)
        return cls(mask_value, max_masked, record["sizes"], size, *names)

    @property
    def choice(self) -> PlaneChoice:
        """Of the planes of a file."""
        return PlaneChoice(self.planes, self.noise, self.mask)

    def with_planes(self, planes: Names | None, noise: Names | None, mask: Names | None) -> PixelPolicy:
        """The same for other planes, noise and masks; None: for the same."""
        return dataclasses.replace(
            self,
            planes=self.planes if planes is None else planes,
            noise=self.noise if noise is None else noise,
            mask=self.mask if mask is None else mask,
        )

    def key(self) -> str:
        """What distinguishes packs of different policies."""
        return repr(dataclasses.astuple(self))


def fill_flagged(image: np.ndarray, policy: PixelPolicy) -> tuple[np.ndarray, int]:
    """Fills flagged pixels with the median of the good ones of their channel, which in a cutout is the sky.

    Args:
        image: [C, H, W].
    Returns:
        The image, and how many of its pixels were flagged.
    Raises:
        UnusableImage: more than `max_masked` of a channel is flagged.
    """
    flagged = ~np.isfinite(image)
    if policy.mask_value is not None:
        flagged |= image == np.float32(policy.mask_value)
    count = int(np.count_nonzero(flagged))
    if not count:
        return image, 0
    worst = flagged.mean(axis=(1, 2)).max()
    if worst > policy.max_masked:
        what = "NaN or infinite" if policy.mask_value is None else f"NaN, infinite or {policy.mask_value:g}"
        raise UnusableImage(f"{count} of {image.size} pixels are {what}")
    filled = image.copy()
    for channel, bad in zip(filled, flagged, strict=True):
        if bad.any():
            channel[bad] = np.median(channel[~bad])
    return filled, count


def fit_size(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cuts the centre of an image [C, H, W], or pads around it with the median of each channel: [C, height, width].

    Each axis is cut or padded on its own; where it is odd, the centre is half a pixel towards the end.
    """
    _, rows, columns = image.shape
    top, left = max(rows - height, 0) // 2, max(columns - width, 0) // 2
    image = image[:, top : top + height, left : left + width]
    missing_rows, missing_columns = height - image.shape[1], width - image.shape[2]
    if missing_rows or missing_columns:
        padded = np.empty((len(image), height, width), image.dtype)
        padded[:] = np.median(image, axis=(1, 2), keepdims=True)
        top, left = missing_rows // 2, missing_columns // 2
        padded[:, top : top + image.shape[1], left : left + image.shape[2]] = image
        image = padded
    return np.ascontiguousarray(image)


def check_channels(path: Path | str, channels: int, needed: int | None) -> None:
    """Raises InputError if the images of a set have not as many channels as are needed; None: any number."""
    if needed not in (None, channels):
        raise InputError(
            f"{path} holds images of {channels} channels, needed are {needed}; give other images, or a network made "
            f"for them (in_channels={channels})"
        )


def common_size(
    path: Path, shapes: Mapping[tuple[int, ...], int], examples: Mapping[tuple[int, ...], str], policy: PixelPolicy
) -> tuple[int, int]:
    """Height and width that images of several shapes are to have.

    Args:
        path: of the set, for the message.
        shapes: how many images have which shape [C, H, W]; examples: the name of one of each.
    Raises: InputError if the policy makes them no one shape.
    """
    channels = {shape[0] for shape in shapes}
    if policy.sizes == "refuse" or len(channels) > 1:
        mixture = ", ".join(f"{shapes[shape]} of {shape} ({name})" for shape, name in examples.items())
        needed = "the same number of channels" if len(channels) > 1 else "one shape, or set sizes=crop or sizes=pad"
        raise InputError(f"{path} mixes image shapes [C, H, W]: {mixture}; give images of {needed}")
    chosen = min if policy.sizes == "crop" else max
    return chosen(shape[1] for shape in shapes), chosen(shape[2] for shape in shapes)


def apply_policy(image: np.ndarray, policy: PixelPolicy) -> tuple[np.ndarray, int]:
    """An image [C, H, W] with its flagged pixels filled, at the policy's size if it has one; and how many were filled.

    Raises:
        UnusableImage: more than `max_masked` of a channel is flagged, a size that cannot be made the policy's, or all
            pixels are equal.
    """
    image, flagged = fill_flagged(image, policy)
    if policy.size is not None:
        (height, width), (rows, columns) = policy.size, image.shape[1:]
        given = f"{rows}x{columns} pixels but size={height}x{width}"
        if policy.sizes == "crop" and (rows < height or columns < width):
            raise UnusableImage(f"{given} to crop to; give a smaller size")
        if policy.sizes == "pad" and (rows > height or columns > width):
            raise UnusableImage(f"{given} to pad to; give a larger size")
        image = fit_size(image, height, width)
    if image.min() == image.max():
        raise UnusableImage(f"constant: every pixel is {image.flat[0]:g}")
    return image, flagged
