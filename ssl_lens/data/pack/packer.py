"""A folder of image files to a pack, made once and reused."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ssl_lens.data.folders.discovery import Found
from ssl_lens.data.folders.layouts import labels_and_parts
from ssl_lens.data.folders.tables import GrowingTable, Table
from ssl_lens.data.pack.pack import FORMAT, IMAGES, Pack, describe_pack, image_hash, open_pack
from ssl_lens.data.pack.reader import Usable, read_all
from ssl_lens.data.pixels.policy import common_size, fit_size
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError
from ssl_lens.files import whole_folder

_READING_VERSION = 5  # to be raised when reading or `pixels` change, so that old packs are not reused


class _Written(NamedTuple):
    """What was learnt while the images were written."""

    table: Table
    hashes: list[bytes]
    shape: tuple[int, ...]
    unusable: list[Unusable]
    flagged: tuple[int, int]
    left_out: Counter[str]
    noise: np.ndarray | None


def cache_folder() -> Path:
    """Where packed and simulated sets are kept: `SSL_LENS_CACHE`, else ~/.cache/ssl_lens."""
    return Path(os.environ.get("SSL_LENS_CACHE") or Path.home() / ".cache" / "ssl_lens")


def cached_pack(found: Found, cache: Path, images: Iterable[Usable | Unusable] | None = None) -> Pack:
    """The pack of the images found: from `cache` if no file changed since, else made there now.

    A file of several images gives them as `name#000000`, `name#000001`, ..., an archive as `name#KEY`; one that breaks
    off gives what lies before the damage, and a reason.

    Args:
        images: what `read_all` gives, for whoever looks at the images while they are packed.
    Raises:
        InputError: images of several shapes that the policy does not make one, or no room in `cache`.
    """
    folder = cache / f"packed-{_fingerprint(found)}"
    try:
        if not folder.is_dir():
            with whole_folder(folder) as made:
                make_pack(found, made, images=images)
    except OSError as error:
        if not os.path.isdir(folder):  # else another process packed the same set meanwhile
            raise InputError(
                f"cannot pack {found.path} into {cache}: {error.strerror or error}; "
                "set SSL_LENS_CACHE to a folder with room"
            ) from error
    return open_pack(folder)


def make_pack(
    found: Found,
    folder: Path,
    complete: Callable[[Table], Table] = lambda known: known,
    images: Iterable[Usable | Unusable] | None = None,
) -> None:
    """Packs images into an empty folder.

    Args:
        complete: adds what is known of the images besides their files.
        images: as of `cached_pack`.
    Raises:
        InputError: images of several shapes that the policy does not make one, or not where the layout has them.
        OSError: no room.
    """
    labels_and_parts(
        [source.name for source in found.sources], found.layout
    )  # a wrong one is reported before all are read
    written = _write_images(found, folder / IMAGES, read_all(found) if images is None else images)
    describe_pack(
        folder,
        complete(written.table),
        written.hashes,
        shape=written.shape,
        source=found.path.resolve(),
        unusable=written.unusable,
        flagged=written.flagged,
        policy=found.policy,
        left_out=written.left_out,
        noise=written.noise,
    )


def _fingerprint(found: Found) -> str:
    """Of everything that decides the pixels."""
    digest = hashlib.sha256(os.fsencode(f"{FORMAT} {_READING_VERSION} {found.root.resolve()} {found.policy.key()}"))
    for name in sorted(found.listed or ()):
        digest.update(f"\0\0\0{name}".encode())
    for source in found.sources:
        digest.update(f"\0\0{source.name}".encode())
        for file in (*source.files, *source.noise, *source.mask):
            if file is None:
                digest.update(b"\0")
                continue
            digest.update(f"\0{file}".encode())
            with contextlib.suppress(OSError):  # a file that is not there is left out when it is read
                status = (found.root / file).stat()
                digest.update(f" {status.st_size} {status.st_mtime_ns} {status.st_mode}".encode())
    return digest.hexdigest()[:24]


def _write_images(found: Found, path: Path, images: Iterable[Usable | Unusable]) -> _Written:
    """Writes the usable images as one array."""
    known, hashes, shapes, unusable = GrowingTable(), [], [], []
    examples: dict[tuple[int, ...], str] = {}
    interned: dict[tuple[int, ...], tuple[int, ...]] = {}
    flagged_pixels = flagged_images = 0
    left_out: Counter[str] = Counter()
    noises: list[np.ndarray | None] = []
    # Front to back and not through a memory map: a full disk then is an error instead of a bus error.
    with path.open("wb") as file:
        for read in images:
            if isinstance(read, Unusable):
                unusable.append(read)
                continue
            image = read.sample.image
            if not known.names:
                _write_header(file, len(found.sources), image.shape)
            examples.setdefault(image.shape, read.name)
            if len(examples) == 1 or found.policy.sizes != "refuse":  # else refused below, once all shapes are known
                file.write(image.data)
            known.add(read.name, read.sample.label, read.sample.targets)
            hashes.append(image_hash(image))
            shapes.append(interned.setdefault(image.shape, image.shape))  # one object per shape, not per image
            flagged_pixels += read.flagged
            flagged_images += read.flagged > 0
            left_out.update(read.sample.left_out)
            noises.append(read.sample.noise)
        if len(examples) == 1:
            _write_header(file, len(known.names), shapes[0])
    shape = shapes[0] if shapes else ()
    if len(examples) > 1:
        shape = (shape[0], *common_size(found.path, Counter(shapes), examples, found.policy))
        hashes = _make_one_size(path, shapes, shape)
    flagged = (flagged_pixels, flagged_images)
    return _Written(known.table(), hashes, shape, unusable, flagged, left_out, _noise_table(noises))


def _noise_table(noises: list[np.ndarray | None]) -> np.ndarray | None:
    """The noise of all images [N, C]; NaN where one has none, None if none has any."""
    known = next((noise for noise in noises if noise is not None), None)
    if known is None:
        return None
    return np.stack([np.full(len(known), np.nan) if noise is None else noise for noise in noises])


def _make_one_size(path: Path, shapes: list[tuple[int, ...]], shape: tuple[int, ...]) -> list[bytes]:
    """Rewrites images of several sizes, which lie one after the other, as one array; returns the images' hashes."""
    mixed, hashes = path.with_name("mixed"), []
    path.rename(mixed)
    with mixed.open("rb") as source, path.open("wb") as file:
        _skip_header(source)
        _write_header(file, len(shapes), shape)
        for own in shapes:
            image = np.frombuffer(source.read(4 * math.prod(own)), np.float32).reshape(own)
            image = fit_size(image, *shape[1:])
            file.write(image.data)
            hashes.append(image_hash(image))
    mixed.unlink()
    return hashes


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Writes the .npy header at the start; its length does not depend on the count, which numpy pads for this."""
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _skip_header(file: BinaryIO) -> None:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
