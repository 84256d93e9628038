"""Images of real galaxies as sources."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.errors import InputError

_SMOOTHED = 2 * np.sqrt(np.pi)  # by how much a Gaussian of one pixel lowers white noise


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
        for i in range(len(self.names)):
            digest.update(self.images.images[i].tobytes())
        return digest.hexdigest()[:24]


@functools.lru_cache(maxsize=1)  # a process draws from one folder
def load_galaxies(folder: Path) -> Galaxies:
    """Loads a folder of images as `load_images` does.

    Raises: InputError if they cannot be used.
    """
    return Galaxies(load_images(folder))


def galaxy_of(image: np.ndarray, name: str) -> Galaxy:
    """An image [C, H, W] made a source: channels summed, sky and neighbours taken off, centred.

    The sky is the median of the border. The galaxy is the brightest of the parts that hang together above three times
    the border's scatter, both smoothed by one pixel; what lies outside is neither lensed nor measured.

    Raises: InputError if there is no such part.
    """
    flat = image.sum(axis=0, dtype=np.float64)
    border = np.concatenate([flat[0], flat[-1], flat[:, 0], flat[:, -1]])
    flat -= np.median(border)
    noise = 1.4826 * np.median(np.abs(border - np.median(border))) / _SMOOTHED
    smooth = ndimage.gaussian_filter(flat, 1.0)
    if smooth.max() <= 6 * noise:  # the highest of a million pixels of noise alone is at 5
        raise InputError(f"source galaxy {name} has no light above its border; remove it")
    parts, count = ndimage.label(smooth > 3 * noise)
    brightest = 1 + int(np.argmax(ndimage.sum_labels(flat, parts, range(1, count + 1))))
    light = np.where(parts == brightest, flat, 0).clip(min=0)
    light /= light.sum()
    rows, columns = np.indices(light.shape)
    middle = (np.array(light.shape) - 1) / 2
    shift = np.round(middle - [(light * rows).sum(), (light * columns).sum()]).astype(int)
    light = np.roll(light, shift, axis=(0, 1))
    radius = np.hypot(rows - middle[0], columns - middle[1]).ravel()
    order = np.argsort(radius, kind="stable")
    half = np.searchsorted(np.cumsum(light.ravel()[order]), 0.5)
    return Galaxy(light, max(float(radius[order][half]), 0.5))
