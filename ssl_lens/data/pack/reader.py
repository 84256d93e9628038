"""Every image of a set, ready to be packed, or the reason why it is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ssl_lens.data.folders.bands import Source, read_source
from ssl_lens.data.folders.discovery import Found
from ssl_lens.data.formats.sample import Damaged, Sample, UnreadableImage
from ssl_lens.data.pixels.policy import PixelPolicy, usable

_CHUNK = 128  # files opened ahead, with up to two images each: bounds memory


class Read(NamedTuple):
    """One image, and how many of its pixels were filled; or the reason why it is left out.

    Attributes:
        sample: with flagged pixels filled, at the policy's size; None if the image is unusable.
        name: within its file, if it has one there.
        flagged: pixels filled.
        reason: why it is unusable.
    """

    sample: Sample | None
    name: str | None
    flagged: int
    reason: str


def read_all(found: Found) -> Iterator[tuple[str, Read]]:
    """Every image in order with its name: sources in parallel, the images of a stack one after the other."""

    def start(source: Source) -> tuple[list[Read], Iterator[Read]]:
        reads = _read_source(found.root, source, found.policy)
        return list(islice(reads, 2)), reads  # two, to know whether there is more than one

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            total=len(found.sources), desc=f"reading {found.path.name}", unit="file", leave=False, disable=None
        ) as bar,
    ):
        for begin in range(0, len(found.sources), _CHUNK):
            chunk = found.sources[begin : begin + _CHUNK]
            for source, (first, rest) in zip(chunk, pool.map(start, chunk), strict=True):
                for i, read in enumerate(chain(first, rest)):
                    alone = len(first) == 1 and read.name is None
                    name = source.name if alone else f"{source.name}#{read.name or f'{i:06d}'}"
                    if found.holds(source.name, name):
                        yield name, read
                bar.update()


def _read_source(root: Path, source: Source, policy: PixelPolicy) -> Iterator[Read]:
    """The images of a source, ready to be packed; damage ends it with a reason."""
    samples = read_source(root, source)
    while True:
        try:
            sample = next(samples)
        except StopIteration:
            return
        except UnreadableImage as error:
            yield Read(None, None, 0, str(error))
            return
        if isinstance(sample, Damaged):
            yield Read(None, sample.name, 0, sample.reason)
            continue
        try:
            image, flagged = usable(sample.image, policy)
        except UnreadableImage as error:
            yield Read(None, sample.name, 0, str(error))
            continue
        yield Read(sample._replace(image=image), sample.name, flagged, "")
