"""Images wherever they lie: a folder, a table, a pack, or single files."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.formats import reader
from ssl_lens.data.formats.planes import left_out_line
from ssl_lens.data.formats.sample import Sample
from ssl_lens.data.images import DEFAULT_POLICY, ImageSet, load_images
from ssl_lens.data.pixels.policy import PixelPolicy, apply_policy, check_channels, common_size
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)


def read_images(
    path: Path | str | Sequence[Path | str],
    *,
    in_channels: int | None = None,
    policy: PixelPolicy = DEFAULT_POLICY,
    layout: LayoutName = "auto",
    table: Path | str | None = None,
    files: str | None = None,
) -> ImageSet:
    """The images of a folder, a table or a pack, as `load_images` gives them; or of image files, in memory.

    Of files all images must be usable, and nothing is known but what the files say of themselves.

    Args:
        path: one path; or several image files.
        in_channels: channels that the images must have; any number if None.
        policy: which pixels are flagged, and what becomes of images of unequal size.
        layout: what the folders mean; table: of labels and numbers; files: pattern of the files; for folders alone.

    Raises: InputError if there is no image, one is damaged, constant or has too many flagged pixels, or the images
        differ in shape; and as `load_images`.
    """
    if isinstance(path, str | Path):
        if not (reader.is_image(Path(path).name) and Path(path).is_file()):
            table = None if table is None else Path(table)
            return load_images(
                Path(path), in_channels=in_channels, policy=policy, layout=layout, table=table, files=files
            )
        path = [path]
    if not path:
        raise InputError("no image files are given; give one or more")
    named = [(name, sample) for file in path for name, sample in _samples(Path(file), policy)]
    if left_out := Counter(plane for _, sample in named for plane in sample.left_out):
        logger.info("%s: %s", path[0], left_out_line(left_out))
    where = f"{path[0]}" if len(path) == 1 else f"{path[0]} and {len(path) - 1} others"
    images = _alike(where, [name for name, _ in named], [sample.image for _, sample in named], policy)
    check_channels(where, images.shape[1], in_channels)
    return ImageSet(images=images, names=tuple(name for name, _ in named), labels=None, classes=(), policy=policy)


def _samples(file: Path, policy: PixelPolicy) -> Iterator[tuple[str, Sample]]:
    """The images of a file with their names: the file's path, and the place in it where there are several."""
    try:
        samples = list(reader.read_images(file, policy.choice))
    except InputError as error:
        raise InputError(f"{file} cannot be read: {error}; give another file") from None
    for i, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            raise InputError(f"{file}#{sample.name} cannot be read: {sample.reason}; give another file")
        name = sample.name if sample.name is not None else f"{i:06d}"
        yield (str(file) if len(samples) == 1 else f"{file}#{name}"), sample


def _alike(where: str, names: Sequence[str], images: Sequence[np.ndarray], policy: PixelPolicy) -> np.ndarray:
    """Images of one shape, flagged pixels filled: [N, C, H, W]."""
    if not images:
        raise InputError(f"{where} holds no image; give another file")
    shapes = Counter(image.shape for image in images)
    if policy.size is None and len(shapes) > 1:
        examples = {image.shape: name for name, image in zip(names, images, strict=True)}
        policy = dataclasses.replace(policy, size=common_size(Path(where), shapes, examples, policy))
    alike = []
    for name, image in zip(names, images, strict=True):
        try:
            alike.append(apply_policy(image, policy)[0])
        except InputError as error:
            raise InputError(f"{name} cannot be used: {error}; give another file") from None
    channels = sorted({len(image) for image in alike})
    if len(channels) > 1:
        raise InputError(f"{where}: the images have {channels} channels; give images of one number of channels")
    return np.stack(alike)
