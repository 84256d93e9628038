"""A pack on disk: all images of a set as one array, a table of what is known of them, and a manifest.

images.npy      float32 [N, C, H, W], little-endian, C order: `numpy.load(path, mmap_mode="r")` opens it
images.csv      name, label, part, numbers and noise of each image, in the array's order
images.sha256   hash and name of each image: of its pixels as they lie in the array
manifest.json   shape, source, pixel policy, planes and images left out and why, hashes of the two files above
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ssl_lens.data.folders.tables import Table, read_written, write_table
from ssl_lens.data.pack.packed_images import Images, PackedImages
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.quarantine import Unusable
from ssl_lens.errors import InputError
from ssl_lens.files import MOST_LISTING, check_regular, read_json

IMAGES, TABLE, HASHES, MANIFEST = "images.npy", "images.csv", "images.sha256", "manifest.json"
FORMAT = "ssl_lens pack 5"
_MOST = 2 << 30  # bytes of the two files that have a line for each image


@dataclass(frozen=True)
class Pack:
    """A pack, opened; of its pixels only the first image is read before they are used.

    Attributes:
        images: [N, C, H, W], float32; None if no image of the set is usable.
        table: what is known of each.
        unusable: images left out.
        flagged: pixels filled, and images that had any.
        policy: by which the images were packed.
        left_out: planes of the files that are not in the images, and in how many images they are not.
        noise: standard deviation of the noise of each image and channel [N, C], float64, in the files' units, NaN where
            it is not known; None if it is of no image.
    """

    images: PackedImages | None
    table: Table
    unusable: tuple[Unusable, ...]
    flagged: tuple[int, int]
    policy: PixelPolicy
    left_out: Mapping[str, int]
    noise: np.ndarray | None = None


def is_pack(folder: Path) -> bool:
    """Whether a folder is a pack, or what is left of one, rather than a folder of images."""
    there = {name for name in (IMAGES, HASHES, MANIFEST) if os.path.isfile(folder / name)}
    return HASHES in there or {IMAGES, MANIFEST} <= there


def open_pack(folder: Path) -> Pack:
    """Opens a pack.

    Raises: InputError if it is of another version, or its files are damaged or do not belong together.
    """
    manifest = _manifest(folder)
    try:
        unusable = tuple(Unusable(str(name), str(reason)) for name, reason in manifest["quarantined"])
        flagged = (int(manifest["flagged_pixels"]), int(manifest["flagged_images"]))
        policy, count, shape = PixelPolicy.from_record(manifest["policy"]), manifest["images"], tuple(manifest["shape"])
        left_out = {str(plane): int(images) for plane, images in manifest["planes_left_out"].items()}
        with_noise = {True: True, False: False}[manifest["noise"]]
        if count == 0:
            return Pack(None, Table((), (), (), {}), unusable, flagged, policy, left_out)
        other = [name for name in (TABLE, HASHES) if _file_hash(folder / name) != manifest["sha256"][name]]
        first = _first_hash(folder)
    except InputError as error:
        raise InputError(f"{folder} is not a whole pack ({error}); pack the images again") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else f"{MANIFEST}: {error!r}"
        raise InputError(f"{folder} is not a whole pack ({reason}); pack the images again") from None
    images = PackedImages(folder / IMAGES)
    if other or images.shape != (count, *shape) or image_hash(images[0]).hex() != first:
        raise InputError(
            f"{folder}: {', '.join(other) or IMAGES} is not as it was packed, or of another pack; pack the images again"
        )
    table = read_written(folder / TABLE)
    if len(table.names) != count:
        raise InputError(f"{folder / TABLE} has {len(table.names)} lines for {count} images; pack the images again")
    noise = None
    if with_noise:
        targets = dict(table.targets)
        columns = [targets.pop(name, None) for name in _noise_columns(shape[0])]
        if any(column is None for column in columns):
            raise InputError(f"{folder / TABLE} lacks the noise of the images; pack the images again")
        table, noise = (
            table._replace(targets=targets),
            np.stack([column for column in columns if column is not None], 1),
        )
    return Pack(images, table, unusable, flagged, policy, left_out, noise)


def describe_pack(
    folder: Path,
    table: Table,
    hashes: Sequence[bytes],
    *,
    shape: Sequence[int],
    source: Path,
    unusable: Sequence[Unusable],
    flagged: tuple[int, int],
    policy: PixelPolicy,
    left_out: Mapping[str, int],
    noise: np.ndarray | None,
) -> None:
    """Writes next to `images.npy` all that makes it a pack; `hashes` are those of the images' bytes."""
    columns = {} if noise is None else dict(zip(_noise_columns(shape[0]), noise.T, strict=True))
    if taken := sorted(columns.keys() & table.targets.keys()):
        raise InputError(f"the number {taken[0]} of the images has the name of a column of their noise; rename it")
    write_table(table._replace(targets={**table.targets, **columns}), folder / TABLE)
    with (folder / HASHES).open("w", encoding="utf-8") as file:
        file.writelines(f"{digest.hex()}  {name}\n" for digest, name in zip(hashes, table.names, strict=True))
    manifest = {
        "format": FORMAT,
        "images": len(table.names),
        "shape": list(shape),
        "source": str(source),
        "policy": asdict(policy),
        "flagged_pixels": flagged[0],
        "flagged_images": flagged[1],
        "planes_left_out": dict(left_out),
        "noise": noise is not None,
        "quarantined": [list(image) for image in unusable],
        "sha256": {name: _file_hash(folder / name) for name in (TABLE, HASHES)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _noise_columns(channels: int) -> list[str]:
    return [f"noise_sigma_{channel}" for channel in range(channels)]


def image_hash(image: np.ndarray) -> bytes:
    """SHA-256 of an image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def pixels_hash(images: Images) -> str:
    """SHA-256 of the hashes of all images in their order; of a pack, those in its files, so that no pixel is read."""
    if isinstance(images, PackedImages):
        lines = (images.path.parent / HASHES).read_text(encoding="utf-8", errors="replace").splitlines()
        digests = [lines[place].partition("  ")[0] for place in images.places()]
    else:
        digests = [image_hash(image).hex() for image in images]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def damages(folder: Path) -> Iterator[str]:
    """Names of the images in a pack whose pixels are no longer as they were packed.

    Raises: InputError as `open_pack`.
    """
    images = open_pack(folder).images
    if images is None:
        return
    with (folder / HASHES).open(encoding="utf-8") as file:
        for i, line in enumerate(file):
            digest, name = line.rstrip("\n").split("  ", 1)
            if image_hash(images[i]).hex() != digest:
                yield name


def _manifest(folder: Path) -> dict:
    try:
        manifest = read_json(folder / MANIFEST, most=MOST_LISTING)
    except InputError as error:
        raise InputError(
            f"{folder / MANIFEST} is not the manifest of a pack ({error}); pack the images again"
        ) from None
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST} is of format {manifest.get('format')!r}, not {FORMAT!r}; pack the images again"
        )
    return manifest


def _first_hash(folder: Path) -> str:
    with (folder / HASHES).open(encoding="utf-8", errors="replace") as file:
        return file.read(64)


def _file_hash(path: Path) -> str:
    if check_regular(path) > _MOST:
        raise InputError(f"{path} has more than {_MOST} bytes, which nothing of its kind has; pack the images again")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
