"""Images of equal pixels, as they are, mirrored or turned by quarter turns."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def orientation_free_key(image: np.ndarray) -> bytes:
    """A hash of an image [C, H, W] that is the same for its quarter turns and mirror images."""
    turned = [np.rot90(side, turns, (1, 2)) for side in (image, image[:, :, ::-1]) for turns in range(4)]
    return min(hashlib.blake2b(np.ascontiguousarray(one).data, digest_size=16).digest() for one in turned)


def duplicate_groups(names: Sequence[str], keys: Sequence[bytes]) -> tuple[tuple[str, ...], ...]:
    """Names of images that share their key, in groups."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name, key in zip(names, keys, strict=True):
        groups[key].append(name)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
