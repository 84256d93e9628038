"""Which files a set of images is made of, and what its folders and tables say of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ssl_lens.data.folders.bands import Source, find_sources
from ssl_lens.data.folders.layouts import TRAIN, LayoutName, labels_and_parts, named_layout
from ssl_lens.data.folders.products import kind_of_product
from ssl_lens.data.folders.tables import SUFFIXES as TABLE_SUFFIXES
from ssl_lens.data.folders.tables import Table, look_up, own_table, read_table
from ssl_lens.data.formats.reader import SUFFIXES, file_of, is_image
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

SIMULATION = "simulation.json"  # in a folder of simulated lenses, from their first image on
# Line ends and their like, bytes that are not text, and what a split file takes for a comment.
_NO_NAME = re.compile(r"^[\s#]|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Found:
    """The files of a set, and how they are to be read.

    Attributes:
        path: what the user gave.
        root: folder that the names are relative to.
        sources: the images' files.
        listed: names of the images, or of their files, that belong to the set; all of the files' if None.
        policy: for their pixels.
        layout: what the folders mean.
        table: of labels and numbers, if there is one.
    """

    path: Path
    root: Path
    sources: tuple[Source, ...]
    listed: frozenset[str] | None
    policy: PixelPolicy
    layout: LayoutName
    table: Table | None

    def holds(self, file: str, image: str) -> bool:
        """Whether an image of a file belongs to the set."""
        return self.listed is None or image in self.listed or file in self.listed


def find_images(path: Path, policy: PixelPolicy, layout: LayoutName, table: Path | None) -> Found:
    """Looks up what a folder of images, or a table of them, is made of.

    Args:
        table: of labels and numbers; None for that in the folder, or for `path` if it is a table.

    Raises: InputError if there is nothing, the table or the name of the layout cannot be used, or a file has a name
        that cannot be a line of a text file.
    """
    known = named_layout(layout)
    if known is not None and policy.sizes == "refuse":
        policy = dataclasses.replace(policy, sizes=known.sizes)
    if path.suffix in TABLE_SUFFIXES and not os.path.isdir(path):
        listed = read_table(path)
        _check_names(listed.names)
        sources = _listed_sources(path.parent, listed)
        more = listed if table is None else read_table(table)
        return Found(path, path.parent, sources, frozenset(listed.names), policy, layout, more)
    sources = tuple(find_sources(_image_files(path)))
    table = table or own_table(path)
    known_of = None if table is None else read_table(table)
    if known_of is not None:
        unmatched = {file_of(name) for name in known_of.names} - {source.name for source in sources}
        if unmatched:
            logger.info("%s names %d files that are not images of %s", table, len(unmatched), path)
    return Found(path, path, sources, None, policy, layout, known_of)


def describe_images(known: Table, table: Table | None, layout: LayoutName) -> Table:
    """What is known of images: classes and parts of the table, else of the files, else of the folders.

    Args:
        known: their names, and what the files say.
    Raises: InputError if an image does not lie where the layout has it, or a column of numbers is in both.
    """
    given = look_up(known.names, table) if table is not None else Table((), (), (), {})
    labels, parts = labels_and_parts([file_of(name) for name in known.names], layout)
    both = known.targets.keys() & given.targets.keys()
    if both:
        raise InputError(f"{', '.join(sorted(both))} of the images is in their files and in a table; rename the column")
    return Table(
        known.names,
        next((column for column in (given.labels, known.labels) if any(column)), labels),
        tuple(map(_part, next((column for column in (given.parts, known.parts) if any(column)), parts))),
        {**known.targets, **given.targets},
    )


def _part(part: str | None) -> str | None:
    """The part by its common name: `Train` and `training` are train."""
    part = None if part is None else part.lower()
    return TRAIN if part == "training" else part


def _listed_sources(root: Path, table: Table) -> tuple[Source, ...]:
    files = sorted({name if os.path.isfile(root / name) else file_of(name) for name in table.names})
    if all(os.path.isfile(root / file) for file in files):
        return tuple(Source(file, (file,)) for file in files)
    in_bands = {source.name: source for source in find_sources(_image_files(root)) if source.bands}
    return tuple(in_bands.get(file, Source(file, (file,))) for file in files)


def _image_files(root: Path) -> list[str]:
    _check_folder(root)

    def refuse(error: OSError) -> None:
        raise InputError(f"folder {error.filename} cannot be read: {error.strerror}; make it readable") from error

    names, others = [], 0
    products: list[str] = []
    for folder, inner_folders, files in os.walk(root, followlinks=True, onerror=refuse):
        kinds = {inner: kind_of_product(Path(folder, inner)) for inner in inner_folders if not inner.startswith(".")}
        products += [f"{Path(folder, inner)} (a {kind})" for inner, kind in kinds.items() if kind is not None]
        inner_folders[:] = [inner for inner, kind in kinds.items() if kind is None]
        for inner in inner_folders:
            _check_no_loop(Path(folder, inner))
        images = [Path(folder, file).relative_to(root).as_posix() for file in files if is_image(file)]
        names += images
        others += len(files) - len(images)
    if products:
        logger.info("%s: %d folders are not images and left out, such as %s", root, len(products), min(products))
    if not names:
        raise InputError(
            f"path={root} holds no images ({others} other files); give a folder with {' '.join(SUFFIXES)} files"
        )
    if others:
        logger.info("%s: %d files that are not images ignored", root, others)
    _check_names(names)
    return sorted(names)


def _check_folder(root: Path) -> None:
    if not os.path.isdir(root):
        found = "is a file" if os.path.isfile(root) else "does not exist, or cannot be looked into"
        raise InputError(f"path={root} {found}; give a folder of images or a {' or '.join(TABLE_SUFFIXES)} table")
    if os.path.isfile(root / SIMULATION) and own_table(root) is None:
        raise InputError(f"the simulation in {root} is not finished; give its command again, which continues it")


def _check_no_loop(folder: Path) -> None:
    if os.path.islink(folder) and folder.resolve() in (around.resolve() for around in folder.parents):
        raise InputError(f"{folder} is a link to a folder around it; remove the link")


def _check_names(names: Iterable[str]) -> None:
    """Names of images become lines of tables and of split files."""
    for name in names:
        if _NO_NAME.search(name):
            shown = ascii(name)
            raise InputError(
                f"file name {shown} has a line end, a tab, bytes that are not UTF-8, or a space or # at its start; "
                "rename it"
            )
