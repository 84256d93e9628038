"""Which files are images, and which belong to an image as its noise, mask or PSF: told apart as planes are, by name."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from ssl_lens.data.formats.plane_names import is_other, kind_of, without_kind
from ssl_lens.data.formats.reader import stem_of

logger = logging.getLogger(__name__)


class Roles(NamedTuple):
    """Files of a set.

    Attributes:
        images: those that are images.
        belonging: the files that belong to an image.
        named_after_folder: images in a folder of their own, such as `lens_00/data.fits`, by their file.
    """

    images: list[str]
    belonging: dict[str, list[str]]
    named_after_folder: dict[str, str]


def roles_of(names: Sequence[str]) -> Roles:
    """Files called noise, mask, PSF and the like belong to the image of the same name, or in the same folder.

    `J1_psf.fits` belongs to `J1.fits` or `J1_sci.fits`, `lens_00/noise_map.fits` to `lens_00/data.fits`, and
    `noise/J1.fits` to `images/J1.fits`. Without such an image a file is one itself, whatever it is called.

    Args:
        names: files, relative to the set's folder, with `/`.
    """
    is_plain = {name: not any(is_other(part) for part in _parts(name)) for name in names}
    images_of: dict[tuple[str, str], list[str]] = defaultdict(list)
    images_in: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if is_plain[name]:
            images_of[_key(name)].append(name)
            images_in[_key(name)[0]].append(name)
    images: list[str] = []
    belonging: dict[str, list[str]] = defaultdict(list)
    for name in names:
        folder, stem = _key(name)
        owners = images_of.get((folder, stem)) or ([] if stem else images_in.get(folder)) or []
        if is_plain[name] or not owners:
            images.append(name)
            continue
        for owner in owners:
            belonging[owner].append(name)
    out = sorted(set(names).difference(images))
    if out:
        kinds = sorted({PurePosixPath(name).name for name in out})
        shown = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")
        logger.info("%d files kept out, which their names say are no images (%s)", len(out), shown)
    return Roles(images, dict(belonging), _named_after_folder(images, belonging))


def name_of(file: str) -> str:
    """A file's name without folders and the suffix of its format."""
    return PurePosixPath(stem_of(file)).name


def _named_after_folder(images: Sequence[str], belonging: dict[str, list[str]]) -> dict[str, str]:
    """Of images whose own name says nothing, alone in a folder with what belongs to them: the folder."""
    alone: dict[str, list[str]] = defaultdict(list)
    for name in images:
        alone[PurePosixPath(name).parent.as_posix()].append(name)
    return {
        name: folder
        for folder, (name, *others) in alone.items()
        if not others and folder != "." and name in belonging and not without_kind(name_of(name))
    }


def _parts(name: str) -> list[str]:
    return [*PurePosixPath(name).parts[:-1], name_of(name)]


def _key(name: str) -> tuple[str, str]:
    """Folder and stem of a file, without what tells planes of one image apart."""
    *folders, stem = _parts(name)
    return "/".join(folder for folder in folders if not is_other(folder) and kind_of(folder) != "flux"), without_kind(
        stem
    )
