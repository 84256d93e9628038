"""A folder of image files to one array on disk, made once and reused: reading it back is a memory map."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_lens.data.bands import Source, read_source
from ssl_lens.data.formats.sample import UnreadableImage
from ssl_lens.data.pixels import PixelPolicy, fault, fill_flagged, fit_size
from ssl_lens.errors import InputError

_PACKING_VERSION = 2  # to be raised when reading or `pixels` change, so that old packs are not reused
_CHUNK = 128  # files opened ahead of the writer, with up to two images each: bounds memory


@dataclass(frozen=True)
class Pack:
    """Packed images [N, C, H, W], float32, memory-mapped read-only; None if no image of the set is usable.

    `names` are theirs; `quarantined` holds name and reason of each image left out; `targets` holds numbers from the
    files [N], float64, NaN where an image has none; `flagged` counts pixels filled and images that had any.
    """

    images: np.ndarray | None
    names: tuple[str, ...]
    quarantined: tuple[tuple[str, str], ...]
    targets: dict[str, np.ndarray]
    flagged: tuple[int, int]


class _Read(NamedTuple):
    """One image on its way to the pack, and how many of its pixels were filled; or the reason why it is left out."""

    image: np.ndarray | None
    targets: dict[str, float]
    flagged: int
    reason: str


def cache_folder() -> Path:
    """Where packed and simulated sets are kept: `SSL_LENS_CACHE`, else ~/.cache/ssl_lens."""
    return Path(os.environ.get("SSL_LENS_CACHE") or Path.home() / ".cache" / "ssl_lens")


def packed(root: Path, sources: Sequence[Source], cache: Path, policy: PixelPolicy) -> Pack:
    """The pack of `sources` under `root`: from `cache` if no file changed since, else made there now.

    A source of several images gives them as `name#000000`, `name#000001`, ...; one that breaks off gives what lies
    before the damage, and a reason.

    Raises:
        InputError: images of several shapes that `policy` does not make one, or no room in `cache`.
    """
    folder = cache / f"packed-{_fingerprint(root, sources, policy)}"
    if not folder.is_dir():
        try:
            make_pack(root, sources, folder, policy)
        except OSError as error:
            raise InputError(
                f"cannot pack {root} into {cache}: {error.strerror}; set SSL_LENS_CACHE to a folder with room"
            ) from error
    return open_pack(folder)


def open_pack(folder: Path) -> Pack:
    """Opens what `make_pack` made; no pixel is read before it is used."""
    index = json.loads((folder / "index.json").read_text())
    return Pack(
        images=np.load(folder / "images.npy", mmap_mode="r") if index["names"] else None,
        names=tuple(index["names"]),
        quarantined=tuple((name, reason) for name, reason in index["quarantined"]),
        targets={name: np.array(values) for name, values in index["targets"].items()},
        flagged=(index["flagged_pixels"], index["flagged_images"]),
    )


def _fingerprint(root: Path, sources: Sequence[Source], policy: PixelPolicy) -> str:
    digest = hashlib.sha256(f"{_PACKING_VERSION} {root.resolve()} {policy.key()}".encode())
    for source in sources:
        digest.update(f"\0\0{source.name}".encode())
        for name in source.files:
            if name is None:
                digest.update(b"\0")
                continue
            try:
                status = (root / name).stat()
            except OSError as error:  # a link to nowhere
                raise InputError(f"{root / name} cannot be read: {error.strerror}; mend or remove it") from error
            digest.update(f"\0{name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def make_pack(root: Path, sources: Sequence[Source], folder: Path, policy: PixelPolicy) -> None:
    """Packs `sources` under `root` into a new folder, which is whole or absent: `images.npy` and `index.json`.

    Where another process made the same folder meanwhile, that one stays.

    Raises:
        InputError: images of several shapes that `policy` does not make one.
        OSError: no room.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="packing-") as temporary:
        made = Path(temporary, "pack")
        made.mkdir()
        index = _write_images(root, sources, made / "images.npy", policy)
        (made / "index.json").write_text(json.dumps(index))
        try:
            made.rename(folder)  # one step, so that a pack is whole or absent
        except OSError:
            if not folder.is_dir():  # else another process packed the same set meanwhile
                raise


def _write_images(root: Path, sources: Sequence[Source], path: Path, policy: PixelPolicy) -> dict[str, object]:
    """Writes the usable images as one array; returns what `index.json` holds."""
    kept, shapes, quarantined = [], [], []
    targets: dict[str, list[float]] = {}
    examples: dict[tuple[int, ...], str] = {}
    interned: dict[tuple[int, ...], tuple[int, ...]] = {}
    flagged_pixels = flagged_images = 0
    # Front to back and not through a memory map: a full disk then is an error instead of a bus error.
    with path.open("wb") as file:
        for name, read in _read_all(root, sources, policy):
            if read.image is None:
                quarantined.append((name, read.reason))
                continue
            if not kept:
                _write_header(file, len(sources), read.image.shape)
            examples.setdefault(read.image.shape, name)
            if len(examples) == 1 or policy.sizes != "refuse":  # else refused below, once all shapes are known
                file.write(read.image.data)
            for column in targets.keys() | read.targets.keys():
                values = targets.setdefault(column, [math.nan] * len(kept))
                values.append(read.targets.get(column, math.nan))
            kept.append(name)
            shapes.append(
                interned.setdefault(read.image.shape, read.image.shape)
            )  # one object per shape, not per image
            flagged_pixels += read.flagged
            flagged_images += read.flagged > 0
        if len(examples) == 1:
            _write_header(file, len(kept), shapes[0])
    if len(examples) > 1:
        _make_one_size(path, shapes, _common_size(root, shapes, examples, policy))
    return {
        "names": kept,
        "quarantined": quarantined,
        "targets": targets,
        "flagged_pixels": flagged_pixels,
        "flagged_images": flagged_images,
    }


def _common_size(
    root: Path, shapes: list[tuple[int, ...]], examples: dict[tuple[int, ...], str], policy: PixelPolicy
) -> tuple[int, int]:
    """Height and width for all images; raises InputError if the policy has none."""
    channels = {shape[0] for shape in shapes}
    if policy.sizes == "refuse" or len(channels) > 1:
        found = ", ".join(f"{shapes.count(shape)} of {shape} ({name})" for shape, name in examples.items())
        needed = "the same number of channels" if len(channels) > 1 else "one shape, or set sizes to crop or pad"
        raise InputError(f"{root} mixes image shapes [C, H, W]: {found}; give images of {needed}")
    chosen = min if policy.sizes == "crop" else max
    return chosen(shape[1] for shape in shapes), chosen(shape[2] for shape in shapes)


def _make_one_size(path: Path, shapes: list[tuple[int, ...]], size: tuple[int, int]) -> None:
    """Rewrites images of several sizes, which lie one behind the other, as one array."""
    mixed = path.with_name("mixed")
    path.rename(mixed)
    with mixed.open("rb") as source, path.open("wb") as file:
        _skip_header(source)
        _write_header(file, len(shapes), (shapes[0][0], *size))
        for shape in shapes:
            image = np.frombuffer(source.read(4 * math.prod(shape)), np.float32).reshape(shape)
            file.write(fit_size(image, *size).data)
    mixed.unlink()


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Writes the .npy header at the start; its length does not depend on the count, which numpy pads for this."""
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _skip_header(file: BinaryIO) -> None:
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)


def _read_all(root: Path, sources: Sequence[Source], policy: PixelPolicy) -> Iterator[tuple[str, _Read]]:
    """Every image in order with its name: sources in parallel, the images of a stack one after the other."""

    def start(source: Source) -> tuple[list[_Read], Iterator[_Read]]:
        reads = _read_source(root, source, policy)
        return list(islice(reads, 2)), reads  # two, to know whether there is more than one

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(sources), desc=f"packing {root.name}", unit="file", leave=False, disable=None) as bar,
    ):
        for begin in range(0, len(sources), _CHUNK):
            chunk = sources[begin : begin + _CHUNK]
            for source, (first, rest) in zip(chunk, pool.map(start, chunk), strict=True):
                if len(first) == 1:
                    yield source.name, first[0]
                else:
                    for i, read in enumerate(first):
                        yield f"{source.name}#{i:06d}", read
                    for i, read in enumerate(rest, start=2):
                        yield f"{source.name}#{i:06d}", read
                bar.update()


def _read_source(root: Path, source: Source, policy: PixelPolicy) -> Iterator[_Read]:
    """The images of a source, ready to be packed; damage ends it with a reason."""
    samples = read_source(root, source)
    while True:
        try:
            sample = next(samples)
        except StopIteration:
            return
        except UnreadableImage as error:
            yield _Read(None, {}, 0, str(error))
            return
        try:
            image, flagged = fill_flagged(sample.image, policy)
        except UnreadableImage as error:
            yield _Read(None, {}, 0, str(error))
            continue
        image = _to_given_size(image, source.name, policy)
        reason = fault(image)
        yield _Read(None, {}, 0, reason) if reason else _Read(image, sample.targets, flagged, "")


def _to_given_size(image: np.ndarray, name: str, policy: PixelPolicy) -> np.ndarray:
    """The image at `policy.size`, if one is given."""
    if policy.size is None:
        return image
    (height, width), (rows, columns) = policy.size, image.shape[1:]
    given = f"{name} has {rows}x{columns} pixels but size={height}x{width}"
    if policy.sizes == "crop" and (rows < height or columns < width):
        raise InputError(f"{given} to crop to; give a smaller size")
    if policy.sizes == "pad" and (rows > height or columns > width):
        raise InputError(f"{given} to pad to; give a larger size")
    return fit_size(image, height, width)
