"""A set of images, with what is known of them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_lens.data.folders.discovery import describe_images, find_images
from ssl_lens.data.folders.layouts import LayoutName, named_layout
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.folders.tables import Table, read_table
from ssl_lens.data.formats.planes import left_out_line
from ssl_lens.data.pack.pack import Pack, image_hash, is_pack, open_pack, pixels_hash
from ssl_lens.data.pack.packed_images import Images, subset
from ssl_lens.data.pack.packer import cache_folder, cached_pack, make_pack
from ssl_lens.data.pixels.policy import PixelPolicy, check_channels
from ssl_lens.data.quarantine import judge_unusable, write_quarantine
from ssl_lens.errors import InputError
from ssl_lens.files import whole_folder

if TYPE_CHECKING:
    import torch

    from ssl_lens.data.batches import Batches, Plan

logger = logging.getLogger(__name__)

DEFAULT_POLICY = PixelPolicy()
UNLABELLED = -1


@dataclass(frozen=True)
class ImageSet:
    """Images of one shape and what is known of them; an `ImageSource`.

    Attributes:
        images: raw pixels [N, C, H, W], float32; read from disk when asked for, if loaded from there.
        names: file of each image, relative to the set's folder, with `/`; the 13th image of a file that holds many is
            `file.npy#000012`, one of an archive `file.tar#KEY`; one joined from band folders has the object's name,
            `lens/100002`.
        labels: class of each image [N], int64, an index into `classes`, `UNLABELLED` where it is not known; None if
            no image has one.
        classes: names in alphabetical order; empty without labels.
        targets: numbers that belong to the images [N], float64, by name, such as `axion_mass_ev`; NaN for an image
            without.
        held_out: whether an image is kept for tests by the set itself [N], bool; None if the set is not divided.
        policy: by which flagged pixels were filled and sizes made equal.
        noise: standard deviation of the noise of each image and channel [N, C], float64, in the files' units, NaN where
            it is not known; None if it is of no image.
    """

    images: Images
    names: tuple[str, ...]
    labels: np.ndarray | None
    classes: tuple[str, ...]
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    held_out: np.ndarray | None = None
    policy: PixelPolicy = DEFAULT_POLICY
    noise: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def renderings(self) -> int:
        """Images of each object."""
        return 1

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, H, W] of every image."""
        return self.images.shape[1:]

    def listing(self) -> dict[str, Any]:
        """What distinguishes these images from others, ready for JSON."""
        listing = {"names": list(self.names), "pixels": pixels_hash(self.images)}
        if self.noise is not None:
            listing["noise"] = image_hash(self.noise).hex()
        return listing

    def sample(self) -> Images:
        """All images [N, C, H, W], on disk where they lie there."""
        return self.images

    def batches(self, plan: Plan, device: torch.device) -> Batches:
        """Batches read by index; see `ArrayBatches`."""
        from ssl_lens.data.array_batches import ArrayBatches  # sets are read and simulated without torch

        return ArrayBatches(self.images, plan, device)

    def labelled(self) -> ImageSet:
        """The images whose class is known.

        Raises: InputError if no image's is.
        """
        if self.labels is None:
            raise InputError(
                f"{self.names[0]} and the other images have no labels; put them into one folder per class, or add "
                "targets.csv with a column label"
            )
        known = self.labels != UNLABELLED
        return self if known.all() else self.subset(np.flatnonzero(known))

    def subset(self, index: np.ndarray) -> ImageSet:
        """The images at `index` [M] in that order; those on disk stay there. Labels keep their classes."""
        return dataclasses.replace(
            self,
            images=subset(self.images, index),
            names=tuple(self.names[i] for i in index),
            labels=None if self.labels is None else self.labels[index],
            targets={name: values[index] for name, values in self.targets.items()},
            held_out=None if self.held_out is None else self.held_out[index],
            noise=None if self.noise is None else self.noise[index],
        )


def load_images(
    path: Path,
    *,
    in_channels: int | None = None,
    cache: Path | None = None,
    quarantine: Path | None = None,
    policy: PixelPolicy = DEFAULT_POLICY,
    layout: LayoutName = "auto",
    table: Path | None = None,
    files: str | None = None,
) -> ImageSet:
    """Loads every image in a folder, a table or a pack; files are packed into the cache the first time.

    Hidden files and those without an image's suffix are ignored, and counted in the log. A file may hold many images;
    files may hold one band each of the same objects, or belong to another as its noise or PSF (`bands.find_sources`).
    Flagged pixels are filled with the median of the good ones of their channel, and counted in the log. Classes are
    those of the table, else of the files, else of the folders (`layouts.labels_and_parts`).

    Args:
        path: folder of images, in folders of any depth; a table of images, as `tables.read_table` takes it; or what
            `ssl-lens data pack` made.
        in_channels: channels that the images must have; any number if None.
        cache: where packed sets are kept, by default `cache_folder()`; a set is known by its names, sizes and dates.
        quarantine: tab-separated file to list the images left out in (name, reason), written if there are any.
        policy: which pixels are flagged, and what becomes of images of unequal size.
        layout: what the folders mean.
        table: of labels and numbers; by default targets.csv or the like in the folder.
        files: pattern of the files of a folder to take, such as *data.fits; None for all.
    Raises:
        InputError: nothing there, images of several shapes, another number of channels, or more than 1 % of the images
            damaged, constant or with too many flagged pixels; a table that cannot be used, a layout that is not theirs,
            or a pack of another policy.
    """
    path = Path(path)
    if is_pack(path):
        check_no_pattern(path, files)
        pack = open_pack(path)
        check_policy(path, pack, policy)
        known = pack.table if table is None else describe_images(pack.table, read_table(table), layout)
    else:
        found = find_images(path, policy, layout, table, files)
        pack = cached_pack(found, cache_folder() if cache is None else cache)
        known = describe_images(pack.table, found.table, layout)
    return _image_set(path, pack, known, layout, in_channels, quarantine)


def pack_images(
    path: Path, out: Path, *, policy: PixelPolicy, layout: LayoutName, table: Path | None, files: str | None = None
) -> ImageSet:
    """Makes a pack of what `load_images` would load, with its labels and numbers inside; `out` is whole or absent.

    Raises: InputError as `load_images`, or if `out` exists or cannot be written.
    """
    if os.path.lexists(out):
        raise InputError(f"{out} exists already; give a new folder")
    if is_pack(path):
        raise InputError(f"{path} is a pack already; use it as it is")
    found = find_images(path, policy, layout, table, files)
    quarantine = out.with_name(f"{out.name}.quarantine.tsv")
    try:
        quarantine.unlink(missing_ok=True)  # of an attempt before
        with whole_folder(out) as made:
            make_pack(found, made, complete=lambda known: describe_images(known, found.table, layout))
            pack = open_pack(made)
            _image_set(path, pack, pack.table, layout, None, quarantine)
    except OSError as error:
        if os.path.lexists(out):
            raise InputError(f"{out} was made by another process meanwhile; use that, or give a new folder") from error
        raise InputError(
            f"cannot pack {path} into {out}: {error.strerror or error}; choose a folder with room"
        ) from error
    return load_images(out, policy=found.policy, layout=layout)


def _image_set(
    path: Path, pack: Pack, known: Table, layout: LayoutName, in_channels: int | None, quarantine: Path | None
) -> ImageSet:
    """The images of a pack, checked and described in the log."""
    if pack.unusable:
        if quarantine is not None:
            write_quarantine(quarantine, pack.unusable)
        seen = len(pack.unusable) + len(pack.table.names)
        logger.warning(judge_unusable(pack.unusable, seen, f"in {path}", quarantine))
    if pack.flagged[0]:
        logger.info("%s: %d flagged pixels of %d images filled with their channel's median", path, *pack.flagged)
    if pack.left_out:
        logger.info("%s: %s", path, left_out_line(pack.left_out))
    if pack.images is None:
        raise InputError(f"none of the images that {path} lists is in its files; correct the names")
    shape = pack.images.shape[1:]
    check_channels(path, shape[0], in_channels)
    check_shape(path, shape, layout)
    labels, classes = _numbered(known.labels)
    held_out = np.array([part not in (None, TRAIN) for part in known.parts])
    logger.info("%s: %d images of shape %s, %s", path, len(known.names), shape, _label_table(known.labels, classes))
    if held_out.any():
        counts = Counter(part for part in known.parts if part is not None)
        logger.info("%s: parts %s", path, ", ".join(f"{part} ({counts[part]})" for part in sorted(counts)))
    return ImageSet(
        images=pack.images,
        names=known.names,
        labels=labels,
        classes=classes,
        targets=known.targets,
        held_out=held_out if held_out.any() else None,
        policy=pack.policy,
        noise=pack.noise,
    )


def check_no_pattern(path: Path, files: str | None) -> None:
    """Raises InputError if files of a pack are to be chosen."""
    if files is not None:
        raise InputError(f"files={files} chooses files of a folder, but {path} is a pack; pack the files that you want")


def check_policy(path: Path, pack: Pack, policy: PixelPolicy) -> None:
    """Raises InputError if a pack was made by another mask value, of other planes, or to another size, than is asked
    for."""
    if policy.mask_value not in (None, pack.policy.mask_value):
        raise InputError(
            f"{path} was packed with mask_value={pack.policy.mask_value}, but mask_value={policy.mask_value:g} is "
            "needed; pack the images again with this value"
        )
    for name in ("planes", "noise", "mask"):
        asked, packed = (",".join(map(str, getattr(one, name))) for one in (policy, pack.policy))
        if asked and asked.lower() != packed.lower():
            how = f"with {name}={packed}" if packed else f"without {name}"
            raise InputError(f"{path} was packed {how}, but {name}={asked} is needed; pack the images again so")
    if pack.images is not None and policy.size not in (None, pack.images.shape[2:]):
        height, width = policy.size
        raise InputError(
            f"{path} was packed to {pack.images.shape[2]}x{pack.images.shape[3]} px, but size={height}x{width} is "
            "needed; pack the images again at this size"
        )


def check_shape(path: Path, shape: tuple[int, ...], layout: LayoutName) -> None:
    """Raises InputError if a DeepLense set of this name has images of another shape."""
    expected = named_layout(layout)
    if expected is not None and expected.shape not in (None, shape):
        raise InputError(f"{path} holds images of shape {shape}, but {layout} has {expected.shape}; set layout=auto")


def _numbered(labels: Sequence[str | None]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    classes = tuple(sorted({label for label in labels if label is not None}))
    if not classes:
        return None, ()
    number = {name: i for i, name in enumerate(classes)}
    return np.array([UNLABELLED if label is None else number[label] for label in labels], dtype=np.int64), classes


def _label_table(labels: Sequence[str | None], classes: Sequence[str]) -> str:
    if not classes:
        return "no classes"
    counts = Counter(labels)
    shown = ", ".join(f"{i} {name} ({counts[name]})" for i, name in enumerate(classes))
    return f"classes {shown}" + (f", unlabelled ({counts[None]})" if counts[None] else "")
