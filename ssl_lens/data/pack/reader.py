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
from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.pixels.policy import PixelPolicy, apply_policy
from ssl_lens.data.quarantine import Unusable

_CHUNK = 128  # files opened ahead, with up to two images each: bounds memory


class Usable(NamedTuple):
    """One image, ready to be packed.

    Attributes:
        name: in the set.
        sample: with flagged pixels filled, at the policy's size.
        flagged: pixels filled.
    """

    name: str
    sample: Sample
    flagged: int


def read_all(found: Found) -> Iterator[Usable | Unusable]:
    """Every image in order: sources in parallel, the images of a stack one after the other."""

    def start(source: Source) -> tuple[list[Usable | Unusable], Iterator[Usable | Unusable]]:
        images = _read_source(found.root, source, found.policy)
        return list(islice(images, 2)), images  # two, to know whether there is more than one

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(
            total=len(found.sources), desc=f"reading {found.path.name}", unit="file", leave=False, disable=None
        ) as bar,
    ):
        for begin in range(0, len(found.sources), _CHUNK):
            chunk = found.sources[begin : begin + _CHUNK]
            for source, (first, rest) in zip(chunk, pool.map(start, chunk), strict=True):
                for i, image in enumerate(chain(first, rest)):
                    alone = len(first) == 1 and not image.name
                    name = source.name if alone else f"{source.name}#{image.name or f'{i:06d}'}"
                    if found.holds(source.name, name):
                        yield image._replace(name=name)
                bar.update()


def _read_source(root: Path, source: Source, policy: PixelPolicy) -> Iterator[Usable | Unusable]:
    """The images of a source, by the names they have in it, "" for none; damage ends it with a reason."""
    samples = read_source(root, source)
    while True:
        try:
            sample = next(samples)
        except StopIteration:
            return
        except UnusableImage as error:
            yield Unusable("", str(error))
            return
        if isinstance(sample, Unusable):
            yield sample
            continue
        name = sample.name or ""
        try:
            image, flagged = apply_policy(sample.image, policy)
        except UnusableImage as error:
            yield Unusable(name, str(error))
            continue
        yield Usable(name, sample._replace(image=image), flagged)
