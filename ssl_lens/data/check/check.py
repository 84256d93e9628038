"""A look at a set before anything is trained on it: what is in it, what is wrong with it, what is in it twice."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.check.duplicates import duplicate_groups, orientation_free_key
from ssl_lens.data.folders.discovery import Found, describe_images, find_images
from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.folders.tables import GrowingTable, Table, read_table
from ssl_lens.data.formats.reader import file_of
from ssl_lens.data.formats.sample import Sample
from ssl_lens.data.images import check_no_pattern, check_policy, check_shape
from ssl_lens.data.pack.pack import Pack, damages, is_pack, open_pack
from ssl_lens.data.pack.reader import Usable, read_all
from ssl_lens.data.pixels.policy import PixelPolicy, common_size
from ssl_lens.data.quarantine import Unusable, judge_unusable
from ssl_lens.errors import InputError

SHOWN_PER_CLASS, SHOWN_CLASSES = 8, 12
NO_CLASS = "(no class)"
_FAR = 100  # times the other pixels


class Band(NamedTuple):
    """Pixels of a band over the whole set, in the files' units."""

    lowest: float
    highest: float
    mean: float
    std: float


@dataclass(frozen=True)
class Report:
    """What was found in a set.

    Attributes:
        names: of the usable images.
        unusable: images that training would leave out.
        shapes, stored: how many images have which shape [C, H, W] and which type in the file.
        flagged: pixels that are filled, and images that have any.
        left_out: planes of the files that are not in the images, and of how many.
        suspects: values that may be flags, and in how many images: of several pixels, and far above all others.
        bands: statistics of each.
        classes: how many images of a class are in which part of the set.
        targets: number of images with it, lowest and highest, of each number that belongs to images.
        duplicates: names of images of the same pixels, or of those turned by quarter turns or mirrored, in groups.
        leaks: an image to train on and the image held out for tests, or of the other set, that it equals in this sense.
        problems: why training would refuse the set; empty if it would not.
        fluxes: mean pixel of each image [N, C], empty where their bands differ; labels: class of each.
        shown: some images of each class.
    """

    path: Path
    names: tuple[str, ...]
    unusable: tuple[Unusable, ...]
    shapes: Mapping[tuple[int, ...], int]
    stored: Mapping[str, int]
    flagged: tuple[int, int]
    left_out: Mapping[str, int]
    suspects: Mapping[float, int]
    bands: tuple[Band, ...]
    classes: Mapping[str, Mapping[str, int]]
    targets: Mapping[str, tuple[int, float, float]]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    fluxes: np.ndarray
    labels: tuple[str, ...]
    shown: Mapping[str, Sequence[np.ndarray]]

    @property
    def accepted(self) -> bool:
        """Whether training would take the set, and nothing of the tests is in it."""
        return not self.problems and not self.leaks


@dataclass
class _Tally:
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
        self.suspects.update(_suspects(image))
        self.keys.append(orientation_free_key(image))

    def moments_of_all(self) -> np.ndarray:
        """[N, C, 4]; empty where the images differ in their bands."""
        if len({len(moments) for moments in self.moments}) != 1:
            return np.zeros((0, 0, 4))
        return np.stack(self.moments)


def check_images(
    path: Path,
    *,
    policy: PixelPolicy,
    layout: LayoutName,
    table: Path | None,
    files: str | None = None,
    held_out: frozenset[str] = frozenset(),
    against: Path | None = None,
) -> Report:
    """Reads every image of a set once, as training would, and reports; memory grows by some 200 bytes an image.

    Args:
        path, policy, layout, table, files: as of `load_images`.
        held_out: names of images that are for tests, in addition to those that the set itself holds out.
        against: another set, whose images should not be in this one.

    Raises: InputError if there is nothing to read.
    """
    source = _open(path, policy, layout, table, files)
    tally, problems, shown = _Tally(), [], _Shown(source)
    try:
        for read in _images(source):
            if isinstance(read, Unusable):
                tally.unusable.append(read)
            else:
                tally.add(read)
                shown.add(read)
    except InputError as error:  # a pack that becomes shorter while it is read
        problems.append(str(error))
    known = tally.known.table()
    try:
        known = _all_known(path, source, known, policy, layout, table)
    except InputError as error:
        problems.append(str(error))
    parts = tuple(
        "test" if name in held_out else part or TRAIN for name, part in zip(known.names, known.parts, strict=True)
    )
    problems += _problems(path, source, tally, layout)
    labels = tuple(label or NO_CLASS for label in known.labels)
    moments = tally.moments_of_all()
    return Report(
        path=path,
        names=known.names,
        unusable=tuple(tally.unusable),
        shapes=dict(tally.shapes),
        stored=dict(tally.stored),
        flagged=(sum(tally.flagged), sum(count > 0 for count in tally.flagged)),
        left_out=dict(source.left_out if isinstance(source, Pack) else tally.left_out),
        suspects=dict(tally.suspects),
        bands=tuple(_band(moments[:, band]) for band in range(moments.shape[1])),
        classes=_class_table(labels, parts),
        targets=_ranges(known.targets),
        duplicates=duplicate_groups(tally.known.names, tally.keys),
        leaks=_leaks(tally, parts, against, policy, layout),
        problems=tuple(problems),
        fluxes=moments[:, :, 2],
        labels=labels,
        shown=shown.images(),
    )


def _all_known(
    path: Path, source: Found | Pack, known: Table, policy: PixelPolicy, layout: LayoutName, table: Path | None
) -> Table:
    """What files, tables and folders say of the images that were read."""
    if isinstance(source, Found):
        return describe_images(known, source.table, layout)
    check_policy(path, source, policy)
    return source.table if table is None else describe_images(source.table, read_table(table), layout)


def _ranges(targets: Mapping[str, np.ndarray]) -> dict[str, tuple[int, float, float]]:
    """How many images have each number, its lowest and its highest."""
    return {
        name: (int(np.isfinite(values).sum()), float(np.nanmin(values)), float(np.nanmax(values)))
        for name, values in targets.items()
        if np.isfinite(values).any()
    }


def _suspects(image: np.ndarray) -> set[float]:
    """Values that may be flags, as Report has it."""
    found = set()
    for band in image:
        highest = band.max()
        others = np.abs(band[band != highest])
        if others.size <= band.size - 2 and others.size and float(highest) > _FAR * float(others.max()):
            found.add(float(highest))
    return found


class _Shown:
    """Evenly chosen images of each class, as far as the class is known while reading."""

    def __init__(self, source: Found | Pack) -> None:
        self._random = np.random.default_rng(0)
        self._seen: Counter[str] = Counter()
        self._kept: dict[str, list[np.ndarray]] = defaultdict(list)
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
        if len(self._kept[label]) < SHOWN_PER_CLASS:
            self._kept[label].append(read.sample.image)
        elif (place := int(self._random.integers(self._seen[label]))) < SHOWN_PER_CLASS:
            self._kept[label][place] = read.sample.image

    def images(self) -> dict[str, list[np.ndarray]]:
        return {label: self._kept[label] for label in sorted(self._kept)}


def _open(
    path: Path, policy: PixelPolicy, layout: LayoutName, table: Path | None, files: str | None = None
) -> Found | Pack:
    if is_pack(path):
        check_no_pattern(path, files)
        return open_pack(path)
    return find_images(path, policy, layout, table, files)


def _images(source: Found | Pack) -> Iterator[Usable | Unusable]:
    if isinstance(source, Found):
        yield from read_all(source)
        return
    yield from source.unusable
    for i, (name, label) in enumerate(zip(source.table.names, source.table.labels, strict=True)):
        assert source.images is not None, "a pack without images has no names"
        image = source.images[i]
        yield Usable(name, Sample(image, image.dtype, label=label), 0)


def _problems(path: Path, source: Found | Pack, tally: _Tally, layout: LayoutName) -> Iterator[str]:
    """What `load_images` would refuse."""
    try:
        if tally.unusable:
            judge_unusable(tally.unusable, len(tally.unusable) + len(tally.known.names), f"in {path}")
        if not tally.known.names:
            yield f"{path} holds no usable image"
            return
        shape = next(iter(tally.shapes))
        if len(tally.shapes) > 1:
            shape = (shape[0], *common_size(path, tally.shapes, tally.examples, source.policy))
        check_shape(path, shape, layout)
    except InputError as error:
        yield str(error)
    if isinstance(source, Pack):
        yield from (f"{path}: {name} is no longer as it was packed; pack the images again" for name in damages(path))


def _class_table(labels: Sequence[str], parts: Sequence[str]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for label, part in zip(labels, parts, strict=True):
        table[label][part] += 1
    return {label: dict(table[label]) for label in sorted(table)}


def _band(moments: np.ndarray) -> Band:
    lowest, highest, mean, variance = moments.T
    return Band(float(lowest.min()), float(highest.max()), float(mean.mean()), math.sqrt(variance.mean() + mean.var()))


def _leaks(
    tally: _Tally, parts: Sequence[str], against: Path | None, policy: PixelPolicy, layout: LayoutName
) -> tuple[tuple[str, str], ...]:
    tests: dict[bytes, str] = {}
    for name, key, part in zip(tally.known.names, tally.keys, parts, strict=True):
        if part != TRAIN:
            tests.setdefault(key, name)
    if against is not None:
        for read in _images(_open(against, policy, layout, None)):
            if isinstance(read, Usable):
                tests.setdefault(orientation_free_key(read.sample.image), f"{against}/{read.name}")
    return tuple(
        (name, tests[key])
        for name, key, part in zip(tally.known.names, tally.keys, parts, strict=True)
        if part == TRAIN and key in tests
    )
