"""Images of real galaxies as sources."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class Galaxy:
    """A galaxy without its sky, centred on its light.

    Attributes:
        light: surface brightness [H, W], sum 1, float64; empty pixels are 0.
        half_light_radius_px: of the circle around the centre that holds half of the light.
    """

    light: np.ndarray
    half_light_radius_px: float


@dataclass(frozen=True)
class Galaxies:
    """A folder of images of galaxies."""

    images: ImageSet

    @property
    def names(self) -> tuple[str, ...]:
        return self.images.names

    def galaxy(self, name: str) -> Galaxy:
        """The galaxy of that name.

        Raises: InputError if it has no light.
        """
        return galaxy_of(self.images.images[self.names.index(name)], name)

    def fingerprint(self) -> str:
        """Changes when a name or a pixel does."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for image in self.images.images:
            digest.update(image.tobytes())
        return digest.hexdigest()[:24]


@functools.lru_cache(maxsize=1)  # a process draws from one folder
def load_galaxies(folder: Path) -> Galaxies:
    """Loads a folder of images as `load_images` does.

    Raises: InputError if they cannot be used.
    """
    return Galaxies(load_images(folder))


def galaxy_of(image: np.ndarray, name: str) -> Galaxy:
    """An image [C, H, W] made a source: channels summed, the median of the border taken off, centred.

    Raises: InputError if there is no light above the border.
    """
    flat = image.sum(axis=0, dtype=np.float64)
    border = np.concatenate([flat[0], flat[-1], flat[:, 0], flat[:, -1]])
    light = np.clip(flat - np.median(border), 0, None)
    if light.sum() == 0:
        raise InputError(f"source galaxy {name} has no light above its border; remove it")
    light /= light.sum()
    rows, columns = np.indices(light.shape)
    middle = (np.array(light.shape) - 1) / 2
    shift = np.round(middle - [(light * rows).sum(), (light * columns).sum()]).astype(int)
    light = np.roll(light, shift, axis=(0, 1))
    radius = np.hypot(rows - middle[0], columns - middle[1]).ravel()
    order = np.argsort(radius, kind="stable")
    half = np.searchsorted(np.cumsum(light.ravel()[order]), 0.5)
    return Galaxy(light, max(float(radius[order][half]), 0.5))
