"""A look at a set before anything is trained on it: what is in it, what is wrong with it, what is in it twice."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.batches import SMALLEST_BATCH, fitting_batch_size
from ssl_lens.data.check.duplicates import duplicate_groups, orientation_free_key
from ssl_lens.data.check.tally import NO_CLASS, Chosen, Shown, Tally
from ssl_lens.data.folders.discovery import Found, describe_images, find_images
from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.folders.tables import Table, read_table
from ssl_lens.data.formats.sample import Sample
from ssl_lens.data.images import check_no_pattern, check_policy, load_images
from ssl_lens.data.pack.pack import Pack, damages, is_pack, open_pack
from ssl_lens.data.pack.packer import cache_folder, cached_pack
from ssl_lens.data.pack.reader import Usable, read_all
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import fit_preprocess
from ssl_lens.data.quarantine import Unusable
from ssl_lens.data.source import ImageSource, open_source
from ssl_lens.data.splits import read_names
from ssl_lens.errors import InputError


class Begun(NamedTuple):
    """What a run would begin with: the images to train on, and a line on each choice that it would make."""

    images: ImageSource
    choices: tuple[str, ...] = ()


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
        problems: why training, or whoever reads the table that was given, would refuse the set; empty if none would.
        damages: what is no longer as it was packed.
        trained_on: number of images that training would see; choices: what it would say of them.
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
    damages: tuple[str, ...]
    trained_on: int
    choices: tuple[str, ...]
    fluxes: np.ndarray
    labels: tuple[str, ...]
    shown: Mapping[str, Sequence[Shown]]

    @property
    def accepted(self) -> bool:
        """Whether training would take the set, whole, and nothing of the tests is in it."""
        return not self.problems and not self.leaks and not self.damages


def check_images(
    path: Path,
    *,
    policy: PixelPolicy,
    layout: LayoutName,
    table: Path | None,
    files: str | None = None,
    exclude: Path | None = None,
    against: Path | None = None,
    begin: Callable[[], Begun] | None = None,
) -> Report:
    """Begins a run on a set without training, and reports what is in its images.

    The verdict is that of the run's own beginning, which finds the images packed into the cache: they are read once,
    here, while they are packed as training would. Memory grows by some 200 bytes an image.

    Args:
        path, policy, layout, table, files: as of `load_images`.
        exclude: file of the names of images that are for tests, in addition to those that the set itself holds out.
        against: another set, whose images should not be in this one.
        begin: begins a run, or raises InputError; None: what every run does with its images.

    Raises: InputError if there is nothing to read, or `exclude` cannot be read.
    """
    source = _open(path, policy, layout, table, files)
    excluded = frozenset(() if exclude is None else read_names(exclude))
    tally, shown = _packed(source)
    begun, problems = _verdict(begin or partial(_begin, path, policy, layout, files, exclude))
    try:
        if not tally.is_whole:
            deque(_counted(_images(source), tally, shown), maxlen=0)
        damaged = tuple(damages(path)) if isinstance(source, Pack) else ()
    except InputError as error:  # a pack that becomes shorter while it is read
        damaged = ()
        problems.append(str(error))
    known = tally.known.table()
    try:
        if table is not None and not problems:  # which evaluators read, and training does not
            load_images(path, policy=policy, layout=layout, table=table, files=files)
        known = _all_known(path, source, known, policy, layout, table)
    except InputError as error:
        problems.append(str(error))
    parts = tuple(
        "test" if name in excluded else part or TRAIN for name, part in zip(known.names, known.parts, strict=True)
    )
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
        leaks=(*_read_by_evaluators_alone(begun, known.names, parts), *_leaks(tally, parts, against, policy, layout)),
        problems=tuple(dict.fromkeys(problems)),
        damages=damaged,
        trained_on=0 if begun is None else len(begun.images),
        choices=() if begun is None else begun.choices,
        fluxes=moments[:, :, 2],
        labels=labels,
        shown=shown.images(),
    )


def _packed(source: Found | Pack) -> tuple[Tally, Chosen]:
    """What is in the images of a folder, looked at while they are packed; nothing where they were packed before."""
    tally, shown = Tally(), Chosen(source)
    if isinstance(source, Found):
        with contextlib.suppress(InputError):  # the run that is begun will say it
            cached_pack(source, cache_folder(), _counted(read_all(source), tally, shown))
    return (tally, shown) if tally.is_whole else (Tally(), Chosen(source))


def _counted(images: Iterable[Usable | Unusable], tally: Tally, shown: Chosen) -> Iterator[Usable | Unusable]:
    """The images, each added to the tally before it is passed on."""
    for read in images:
        if isinstance(read, Unusable):
            tally.unusable.append(read)
        else:
            tally.add(read)
            shown.add(read)
        yield read
    tally.is_whole = True


def _verdict(begin: Callable[[], Begun]) -> tuple[Begun | None, list[str]]:
    """What a run begins with; or None, and why it refuses."""
    try:
        return begin(), []
    except InputError as error:
        return None, [str(error)]


def _begin(path: Path, policy: PixelPolicy, layout: LayoutName, files: str | None, exclude: Path | None) -> Begun:
    """What every run does with its images, whatever its network, crops and batch."""
    images = open_source(str(path), policy=policy, layout=layout, files=files, exclude=exclude)
    fitting_batch_size(SMALLEST_BATCH, len(images), parts=1)
    fit_preprocess(images.sample(), center_crop=None, bin=1, stretch="none", policy=images.policy)
    return Begun(images)


def _read_by_evaluators_alone(
    begun: Begun | None, names: Sequence[str], parts: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Images that a table holds out which was given, and which training does not read."""
    trained_on = frozenset(() if begun is None else begun.images.names)
    for name, part in zip(names, parts, strict=True):
        if part != TRAIN and name in trained_on:
            yield name, f"itself, as training reads the table in the folder alone, which does not call it {part}"


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


def _open(path: Path, policy: PixelPolicy, layout: LayoutName, table: Path | None, files: str | None) -> Found | Pack:
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


def _class_table(labels: Sequence[str], parts: Sequence[str]) -> dict[str, dict[str, int]]:
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for label, part in zip(labels, parts, strict=True):
        table[label][part] += 1
    return {label: dict(table[label]) for label in sorted(table)}


def _band(moments: np.ndarray) -> Band:
    lowest, highest, mean, variance = moments.T
    return Band(float(lowest.min()), float(highest.max()), float(mean.mean()), math.sqrt(variance.mean() + mean.var()))


def _leaks(
    tally: Tally, parts: Sequence[str], against: Path | None, policy: PixelPolicy, layout: LayoutName
) -> tuple[tuple[str, str], ...]:
    tests: dict[bytes, str] = {}
    for name, key, part in zip(tally.known.names, tally.keys, parts, strict=True):
        if part != TRAIN:
            tests.setdefault(key, name)
    if against is not None:
        for read in _images(_open(against, policy, layout, None, None)):
            if isinstance(read, Usable):
                tests.setdefault(orientation_free_key(read.sample.image), f"{against}/{read.name}")
    return tuple(
        (name, tests[key])
        for name, key, part in zip(tally.known.names, tally.keys, parts, strict=True)
        if part == TRAIN and key in tests
    )
