"""A folder of image files to one array on disk, made once and reused: reading it back is a memory map."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from ssl_lens.data.formats import UnreadableImage, read_image
from ssl_lens.errors import InputError

_PACKING_VERSION = 1  # to be raised when `read_image` or `_fault` change, so that old packs are not reused
_CHUNK = 512  # images decoded ahead of the writer: bounds memory


@dataclass(frozen=True)
class Pack:
    """Packed images [N, C, H, W], float32, memory-mapped read-only; None if no image of the set is usable.

    `names` are theirs; `quarantined` holds name and reason of each image left out.
    """

    images: np.ndarray | None
    names: tuple[str, ...]
    quarantined: tuple[tuple[str, str], ...]


def cache_folder() -> Path:
    """Where packed and simulated sets are kept: `SSL_LENS_CACHE`, else ~/.cache/ssl_lens."""
    return Path(os.environ.get("SSL_LENS_CACHE") or Path.home() / ".cache" / "ssl_lens")


def packed(root: Path, names: list[str], cache: Path) -> Pack:
    """The pack of the files `names` under `root`: from `cache` if no file changed since, else made there now.

    Raises:
        InputError: images of several shapes, or no room in `cache`.
    """
    folder = cache / f"packed-{_fingerprint(root, names)}"
    if not folder.is_dir():
        try:
            _make(root, names, folder)
        except OSError as error:
            raise InputError(
                f"cannot pack {root} into {cache}: {error.strerror}; set SSL_LENS_CACHE to a folder with room"
            ) from error
    index = json.loads((folder / "index.json").read_text())
    images = np.load(folder / "images.npy", mmap_mode="r") if index["names"] else None
    return Pack(images, tuple(index["names"]), tuple((name, reason) for name, reason in index["quarantined"]))


def _fingerprint(root: Path, names: list[str]) -> str:
    digest = hashlib.sha256(f"{_PACKING_VERSION} {root.resolve()}".encode())
    for name in names:
        try:
            status = (root / name).stat()
        except OSError as error:  # a link to nowhere
            raise InputError(f"{root / name} cannot be read: {error.strerror}; mend or remove it") from error
        digest.update(f"\0{name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _make(root: Path, names: list[str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="packing-") as temporary:
        made = Path(temporary, "pack")
        made.mkdir()
        kept, quarantined = _write_images(root, names, made / "images.npy")
        (made / "index.json").write_text(json.dumps({"names": kept, "quarantined": quarantined}))
        try:
            made.rename(folder)  # one step, so that a pack is whole or absent
        except OSError:
            if not folder.is_dir():  # else another process packed the same set meanwhile
                raise


def _write_images(root: Path, names: list[str], path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Writes the usable images as one array; returns their names, and name and reason of the others."""
    kept, quarantined = [], []
    shapes: dict[tuple[int, ...], list[str]] = {}
    # Front to back and not through a memory map: a full disk then is an error instead of a bus error.
    with path.open("wb") as file:
        for name, image in _read_all(root, names):
            if isinstance(image, str):
                quarantined.append((name, image))
                continue
            shapes.setdefault(image.shape, []).append(name)
            if len(shapes) > 1:
                continue  # refused below, once all shapes are known
            if not kept:
                _write_header(file, len(names), image.shape)
            file.write(image.data)
            kept.append(name)
        if len(shapes) > 1:
            found = ", ".join(f"{len(of_shape)} of {shape} ({of_shape[0]})" for shape, of_shape in shapes.items())
            raise InputError(f"{root} mixes image shapes [C, H, W]: {found}; give images of one shape")
        for shape in shapes:
            _write_header(file, len(kept), shape)
    return kept, quarantined


def _write_header(file: BinaryIO, count: int, shape: tuple[int, ...]) -> None:
    """Writes the .npy header at the start; its length does not depend on the count, which numpy pads for this."""
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _read_all(root: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray | str]]:
    """Each name in order with its image, or with the reason why it is not usable."""

    def read(name: str) -> np.ndarray | str:
        try:
            image = read_image(root / name)
        except UnreadableImage as error:
            return str(error)
        return _fault(image) or image

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(names), desc=f"packing {root.name}", unit="image", leave=False, disable=None) as bar,
    ):
        for start in range(0, len(names), _CHUNK):
            chunk = names[start : start + _CHUNK]
            for name, image in zip(chunk, pool.map(read, chunk), strict=True):
                yield name, image
                bar.update()


def _fault(image: np.ndarray) -> str | None:
    unusable = image.size - np.count_nonzero(np.isfinite(image))
    if unusable:
        return f"{unusable} of {image.size} pixels are NaN or infinite"
    if image.min() == image.max():
        return f"constant: every pixel is {image.flat[0]:g}"
    return None
