"""The features of a whole set in one file, computed part by part: what stopped goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from tqdm import tqdm

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.formats.planes import Names
from ssl_lens.data.images import ImageSet
from ssl_lens.errors import InputError
from ssl_lens.files import whole_file
from ssl_lens.representation.embedding_file import WRITERS, Writer
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone
from ssl_lens.representation.inputs import BATCH_SIZE, best_device, images_of, in_advance
from ssl_lens.representation.pooling_names import Pooling

logger = logging.getLogger(__name__)

PART_IMAGES = 1024  # images whose features are kept together, and lost if the process is stopped among them

Which: TypeAlias = Literal["features", "view"]


class Embedding(NamedTuple):
    """What `embed` wrote: the file, the number of images in it, and the length of their vectors."""

    path: Path
    images: int
    dimension: int


def embed(
    target: Path | str | FrozenBackbone,
    data: Path | str,
    out: Path | str,
    *,
    which: Which = "features",
    pooling: Pooling | None = None,
    batch_size: int = BATCH_SIZE,
    layout: LayoutName = "auto",
    table: Path | str | None = None,
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
) -> Embedding:
    """Writes the features of all images of a set, one row per image, in the set's order.

    A row has `name`, `label` where the class is known, the numbers that belong to the image, and `vector` in float32.
    Features are kept in the folder `OUT.parts` until all are there. The file is whole or absent; stopped and called
    again, the work goes on, and the file is the same. Parts of another network or of other pixels are not used.

    Args:
        target: a run, an export, or a frozen backbone, which computes where it is; a path's, on a GPU if there is one.
        data: folder of images, table or pack, as `data.reading.read_images` takes it.
        out: a file `NAME.parquet`; or `NAME.npy`, the vectors [N, F] alone, with all else in `NAME.csv`.
        which: the `features` that are measured, or the backbone's own `view`.
        pooling: what the features are; None for what `load_backbone` gives.
        batch_size: images computed at once.
        layout, table, files: what is known of the images, and which files are read, as in `read_images`.
        planes, noise, mask: which planes of the files are read, in the place of those that the backbone was trained on.

    Raises: InputError if one of these cannot be used, or `out` cannot be written.
    """
    out = Path(out)
    write = _writer(out, Path(data))
    frozen = _frozen(target, which, pooling)
    images = images_of(
        data, frozen.preprocess, layout=layout, table=table, files=files, planes=planes, noise=noise, mask=mask
    )
    frozen.check_size(images.shape[1], images.shape[2])
    folder = out.with_name(f"{out.name}.parts")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts = list(_parts(frozen, images, folder, batch_size))
        dimension = np.load(parts[0], mmap_mode="r").shape[1]
        write(out, images, (np.load(part) for part in parts), dimension)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}; choose a folder with room") from error
    shutil.rmtree(folder, ignore_errors=True)
    return Embedding(out, len(images), dimension)


def _writer(out: Path, data: Path) -> Writer:
    if out.suffix not in WRITERS:
        raise InputError(f"{out} cannot be written; give a name that ends in {' or '.join(WRITERS)}")
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise InputError(f"{out} lies in {data}, to whose images it would add; give another folder")
    return WRITERS[out.suffix]


def _frozen(target: Path | str | FrozenBackbone, which: Which, pooling: Pooling | None) -> FrozenBackbone:
    """The backbone whose `features` are what is asked for."""
    if which not in get_args(Which):
        raise InputError(f"which={which!r} is unknown; give {' or '.join(get_args(Which))}")
    if which == "view" and pooling is not None:
        raise InputError(f"pooling={pooling!r} makes features, not the view; give one of the two")
    pooling = "view" if which == "view" else pooling
    if isinstance(target, FrozenBackbone):
        return target if pooling is None else FrozenBackbone(target.preprocess, target.backbone, pooling)
    return load_backbone(target, pooling=pooling).to(best_device())


def _parts(frozen: FrozenBackbone, images: ImageSet, folder: Path, batch_size: int) -> Iterator[Path]:
    """Files of the features of `PART_IMAGES` images each, in order; those that are there are not computed again."""
    network = _fingerprint(frozen, batch_size)
    bar = tqdm(total=len(images), unit="image", desc="embed", disable=None)
    with bar:
        for start, pixels, key in in_advance(_read_parts(images, network)):
            file = folder / f"{start:09d}-{key}.npy"
            if not _is_whole(file, len(pixels)):
                features = extract(frozen, pixels, batch_size=batch_size)
                with whole_file(file) as temporary, temporary.open("wb") as stream:
                    np.save(stream, features)
            bar.update(len(pixels))
            if bar.disable:  # off a terminal: plain lines
                logger.info("embed: %d of %d images", start + len(pixels), len(images))
            yield file


def _read_parts(images: ImageSet, network: bytes) -> Iterator[tuple[int, np.ndarray, str]]:
    """Of each part where it starts, its pixels, and what its features depend on."""
    for start in range(0, len(images), PART_IMAGES):
        pixels = np.ascontiguousarray(images.images[start : start + PART_IMAGES])
        yield start, pixels, hashlib.sha256(network + pixels.tobytes()).hexdigest()


def _is_whole(file: Path, count: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return len(np.load(file, mmap_mode="r")) == count
    return False


def _fingerprint(frozen: FrozenBackbone, batch_size: int) -> bytes:
    """What the features depend on besides the pixels; the batch size and the device decide their last bits."""
    settings = [frozen.preprocess.config(), frozen.pooling, frozen.backbone.config(), batch_size, frozen.device.type]
    digest = hashlib.sha256(json.dumps([type(frozen.backbone).__name__, *settings], default=str).encode())
    for name, value in frozen.state_dict().items():  # of the backbone and the alignment
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.digest()
