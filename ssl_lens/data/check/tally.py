"""What is kept of the images of a set while they are read, each once: numbers of all, and a few to be drawn."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ssl_lens.data.check.duplicates import orientation_free_key
from ssl_lens.data.folders.discovery import Found, describe_images
from ssl_lens.data.folders.tables import GrowingTable, Table
from ssl_lens.data.formats.reader import file_of, is_picture
from ssl_lens.data.pack.pack import Pack
from ssl_lens.data.pack.reader import Usable
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError

SHOWN_PER_CLASS, SHOWN_CLASSES = 8, 12
NO_CLASS = "(no class)"
_FAR = 100  # times the other pixels


class Shown(NamedTuple):
    """An image [C, H, W] to be drawn; picture: whether it is one, rather than an array."""

    image: np.ndarray
    picture: bool


@dataclass
class Tally:
    """What grows while images are read."""

    known: GrowingTable = field(default_factory=GrowingTable)
    unusable: list[Unusable] = field(default_factory=list)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    examples: dict[tuple[int, ...], str] = field(default_factory=dict)
    stored: Counter[str] = field(default_factory=Counter)
    flagged: list[int] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    suspects: Counter[float] = field(default_factory=Counter)
    moments: list[np.ndarray] = field(default_factory=list)  # of each image [C, 4]: lowest, highest, mean, variance
    keys: list[bytes] = field(default_factory=list)
    is_whole: bool = False  # whether all images were seen

    def add(self, read: Usable) -> None:
        image = read.sample.image
        pixels = image.reshape(len(image), -1).astype(np.float64)
        self.known.add(read.name, read.sample.label, read.sample.targets)
        self.shapes[image.shape] += 1
        self.examples.setdefault(image.shape, read.name)
        self.stored[read.sample.stored.name] += 1
        self.flagged.append(read.flagged)
        self.left_out.update(read.sample.left_out)
        self.moments.append(np.stack([pixels.min(1), pixels.max(1), pixels.mean(1), pixels.var(1)], axis=1))
        self.suspects.update(suspicious_values(image))
        self.keys.append(orientation_free_key(image))

    def moments_of_all(self) -> np.ndarray:
        """[N, C, 4]; empty where the images differ in their bands."""
        if len({len(moments) for moments in self.moments}) != 1:
            return np.zeros((0, 0, 4))
        return np.stack(self.moments)


def suspicious_values(image: np.ndarray) -> set[float]:
    """Values that may be flags, of several pixels, and far above all others."""
    found = set()
    for band in image:
        highest = band.max()
        others = np.abs(band[band != highest])
        if others.size <= band.size - 2 and others.size and float(highest) > _FAR * float(others.max()):
            found.add(float(highest))
    return found


class Chosen:
    """Evenly chosen images of each class, as far as the class is known while reading."""

    def __init__(self, source: Found | Pack) -> None:
        self._root = source.root if isinstance(source, Found) else None
        self._random = np.random.default_rng(0)
        self._seen: Counter[str] = Counter()
        self._kept: dict[str, list[Shown]] = defaultdict(list)
        self._class: dict[str, str | None] = {}
        if isinstance(source, Found):
            files = tuple(file.name for file in source.sources)
            nothing = (None,) * len(files)
            with contextlib.suppress(InputError):  # reported by whoever needs the classes
                described = describe_images(Table(files, nothing, nothing, {}), source.table, source.layout)
                self._class = dict(zip(files, described.labels, strict=True))

    def add(self, read: Usable) -> None:
        file = file_of(read.name)
        label = read.sample.label or self._class.get(file) or NO_CLASS
        self._seen[label] += 1
        if label not in self._kept and len(self._kept) == SHOWN_CLASSES:
            return
        place = len(self._kept[label])
        if place == SHOWN_PER_CLASS:
            place = int(self._random.integers(self._seen[label]))
        if place < SHOWN_PER_CLASS:
            self._kept[label][place : place + 1] = [Shown(read.sample.image, is_picture(read.name, self._root))]

    def images(self) -> dict[str, list[Shown]]:
        return {label: self._kept[label] for label in sorted(self._kept)}
