"""A set of images, labelled by its folders or not."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ssl_lens.data.bands import find_sources
from ssl_lens.data.formats.reading import SUFFIXES, is_image
from ssl_lens.data.packing import Pack, cache_folder, packed
from ssl_lens.data.pixels import PixelPolicy
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_POLICY = PixelPolicy()

_MOST_QUARANTINED = 0.01  # of all images


@dataclass(frozen=True)
class ImageSet:
    """Images of one shape and what is known of them.

    Attributes:
        images: raw pixels [N, C, H, W], float32; read-only and memory-mapped when loaded from a folder.
        names: file of each image, relative to the set's folder, with `/`; the 13th image of a file that holds many is
            `file.npy#000012`, and one joined of band folders is called as the object, `lens/100002`.
        labels: class of each image [N], int64, an index into `classes`; None where there are no class folders.
        classes: names in alphabetical order; empty without labels.
        targets: numbers that the files hold beside their images [N], float64, by name, such as `axion_mass_ev`; NaN
            for an image without.
    """

    images: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    targets: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, index: np.ndarray) -> ImageSet:
        """The images at `index` [M] in that order, copied to memory; labels keep their classes."""
        labels = None if self.labels is None else self.labels[index]
        names = tuple(self.names[i] for i in index)
        targets = {name: values[index] for name, values in self.targets.items()}
        return ImageSet(np.asarray(self.images[index]), names, labels, self.classes, targets)


def load_images(
    root: Path,
    *,
    in_channels: int | None = None,
    cache: Path | None = None,
    quarantine: Path | None = None,
    policy: PixelPolicy = DEFAULT_POLICY,
) -> ImageSet:
    """Loads every image under a folder; the first time it packs them into the cache.

    Where every image lies in a folder of `root`, these first-level folders are the classes. Hidden files and those
    without an image's suffix are ignored, and counted in the log. A file may hold many images; sibling folders `Band1`,
    `Band2`, ... hold one band each of the same objects. Flagged pixels are filled with the median of the good ones of
    their channel, and counted in the log.

    Args:
        root: folder of images, in folders of any depth.
        in_channels: channels that the images must have; any number if None.
        cache: where packed sets are kept, by default `cache_folder()`; a set is known by its names, sizes and dates.
        quarantine: tab-separated file to list the images left out in (name, reason), written if there are any.
        policy: which pixels are flagged, and what becomes of images of unequal size.
    Raises:
        InputError: missing or empty folder, images of several shapes, another number of channels, or more than 1 %
            of the images damaged, constant or with too many flagged pixels.
    """
    root = Path(root)
    pack = packed(root, find_sources(_find_images(root)), cache_folder() if cache is None else cache, policy)
    _report_quarantined(pack, root, quarantine)
    if pack.flagged[0]:
        logger.info("%s: %d flagged pixels of %d images filled with their channel's median", root, *pack.flagged)
    channels = pack.images.shape[1]
    if in_channels not in (None, channels):
        raise InputError(
            f"{root} holds images of {channels} channels but in_channels={in_channels}; "
            f"set it to {channels} or give other images"
        )
    labels, classes = _labels_from_folders(pack.names)
    kinds = f"classes {', '.join(classes)}" if classes else "no class folders"
    logger.info("%s: %d images of shape %s, %s", root, len(pack.names), pack.images.shape[1:], kinds)
    return ImageSet(pack.images, pack.names, labels, classes, pack.targets)


def _find_images(root: Path) -> list[str]:
    if not root.is_dir():
        found = "is a file" if root.is_file() else "does not exist"
        raise InputError(f"image folder {root} {found}; set data.path to a folder of images")

    def refuse(error: OSError) -> None:
        raise InputError(f"folder {error.filename} cannot be read: {error.strerror}; make it readable") from error

    names, others = [], 0
    for folder, inner_folders, files in os.walk(root, followlinks=True, onerror=refuse):
        inner_folders[:] = [inner for inner in inner_folders if not inner.startswith(".")]
        images = [Path(folder, file).relative_to(root).as_posix() for file in files if is_image(file)]
        names += images
        others += len(files) - len(images)
    if not names:
        raise InputError(
            f"no images in {root} ({others} other files); set data.path to a folder with {' '.join(SUFFIXES)} files"
        )
    if others:
        logger.info("%s: %d files that are no images ignored", root, others)
    return sorted(names)


def _report_quarantined(pack: Pack, root: Path, quarantine: Path | None) -> None:
    quarantined, count = pack.quarantined, len(pack.quarantined) + len(pack.names)
    if not quarantined:
        return
    if quarantine is not None:
        quarantine.parent.mkdir(parents=True, exist_ok=True)
        quarantine.write_text("".join(f"{name}\t{reason}\n" for name, reason in quarantined), encoding="utf-8")
    where = "" if quarantine is None else f"; all are listed in {quarantine}"
    summary = f"{len(quarantined)} of {count} images in {root} are unusable, such as {': '.join(quarantined[0])}{where}"
    if len(quarantined) > _MOST_QUARANTINED * count:
        raise InputError(f"{summary}; mend or remove them, since at most {_MOST_QUARANTINED:.0%} are left out")
    logger.warning("%s; they are left out", summary)


def _labels_from_folders(names: tuple[str, ...]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    folders = [name.split("/")[0] if "/" in name else None for name in names]
    if None in folders:
        return None, ()
    classes = tuple(sorted(set(folders)))
    position = {name: label for label, name in enumerate(classes)}
    return np.array([position[folder] for folder in folders], dtype=np.int64), classes
