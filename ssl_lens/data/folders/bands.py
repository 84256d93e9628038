"""One band per file in parallel folders `Band1`, `Band2`, ...: joined to one image of as many channels."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from ssl_lens.data.formats.reader import SUFFIXES, read_images
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

_BAND = re.compile(r"band[ _-]?(\d+)", re.IGNORECASE)


class Source(NamedTuple):
    """What one image, or one stack of images, is read from.

    Attributes:
        name: of the image, relative to the set's folder, with `/`.
        files: its file; or one file per band, in the order of the bands, None where a band is missing.
        bands: folders of the bands; empty for a file of its own.
    """

    name: str
    files: tuple[str | None, ...]
    bands: tuple[str, ...] = ()


def find_sources(names: Sequence[str]) -> list[Source]:
    """Sorts files into images: files in two or more sibling folders `Band<number>` are bands of one object.

    Bands are matched by the object's name, which is what lies between the first and the last digit of the file's name
    once the band's own name is taken out: `Band2/imageSDSS_I-100002.fits` is a band of `100002`. The image is named
    after the object, next to the band folders: `lens/100002`. Channels follow the numbers of the bands.

    Args:
        names: files, relative to the set's folder, with `/`.
    Returns:
        Sources in alphabetical order of their names.
    Raises:
        InputError: two files of one band are the same object.
    """
    parents: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    sources = []
    for name in names:
        folder = PurePosixPath(name).parent
        if _BAND.fullmatch(folder.name):
            parents[folder.parent.as_posix()][folder.name].append(name)
        else:
            sources.append(Source(name, (name,)))
    for parent, folders in parents.items():
        if len(folders) == 1:
            sources += [Source(name, (name,)) for name in next(iter(folders.values()))]
        else:
            sources += _join(parent, folders)
    return sorted(sources, key=lambda source: source.name)


def read_source(root: Path, source: Source) -> Iterator[Sample | Unusable]:
    """Reads the images of a source; its bands become the channels of one image.

    Raises:
        UnusableImage: as `read_images`, or a band is missing, holds several images, or has another size.
    """
    if not source.bands:
        yield from read_images(root / source.name)
        return
    missing = [band for band, file in zip(source.bands, source.files, strict=True) if file is None]
    if missing:
        raise UnusableImage(f"{', '.join(missing)} missing of {len(source.bands)} bands")
    bands: list[np.ndarray] = []
    targets: dict[str, float] = {}
    for band, file in zip(source.bands, source.files, strict=True):
        samples = read_images(root / str(file))
        sample = next(samples)
        if isinstance(sample, Unusable):
            raise UnusableImage(f"{band}: {sample.reason}")
        if next(samples, None) is not None:
            raise UnusableImage(f"{band} holds several images; needed is one per file")
        if bands and sample.image.shape[1:] != bands[0].shape[1:]:
            raise UnusableImage(f"{band} has {sample.image.shape[1:]} pixels but the first {bands[0].shape[1:]}")
        bands.append(sample.image)
        targets.update(sample.targets)
        stored = sample.stored
    yield Sample(np.concatenate(bands), stored, targets)


def _join(parent: str, folders: dict[str, list[str]]) -> Iterator[Source]:
    bands = tuple(sorted(folders, key=lambda band: int(_BAND.sub(r"\1", band))))
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    for band in bands:
        for name in folders[band]:
            found = _object_name(name, band)
            if band in objects[found]:
                raise InputError(
                    f"{objects[found][band]} and {name} are both object {found} in {band}; name files by their object"
                )
            objects[found][band] = name
    place = "" if parent == "." else f"{parent}/"
    incomplete = sum(len(files) < len(bands) for files in objects.values())
    logger.info(
        "%s: %d objects in the bands %s, joined to images; %d lack a band",
        parent,
        len(objects),
        ", ".join(bands),
        incomplete,
    )
    for found, files in objects.items():
        yield Source(f"{place}{found}", tuple(files.get(band) for band in bands), bands)


def _object_name(name: str, band: str) -> str:
    file = PurePosixPath(name).name
    suffix = max((suffix for suffix in SUFFIXES if file.lower().endswith(suffix)), key=len)
    stem = re.sub(re.escape(band), "", file[: -len(suffix)], flags=re.IGNORECASE)
    digits = re.search(r"\d.*\d|\d", stem)
    return digits.group() if digits else stem
