"""Which files a set of images is made of, and what its folders and tables say of them."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ssl_lens.data.folders.bands import Source, find_sources
from ssl_lens.data.folders.layouts import LayoutName, labels_and_parts, named_layout
from ssl_lens.data.folders.name_matching import look_up, match, nearest
from ssl_lens.data.folders.own_tables import is_table, own_tables, read_own
from ssl_lens.data.folders.parts import TRAIN
from ssl_lens.data.folders.products import kind_of_product
from ssl_lens.data.folders.table_file import SHOWN_SUFFIXES
from ssl_lens.data.folders.tables import Table, read_table
from ssl_lens.data.formats.planes import PlaneChoice
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


def find_images(
    path: Path, policy: PixelPolicy, layout: LayoutName, table: Path | None, files: str | None = None
) -> Found:
    """Looks up what a folder of images, or a table of them, is made of.

    Args:
        table: of labels and numbers; None for that in the folder, or for `path` if it is a table.
        files: pattern of the files to take, of their names or the ends of their paths; None for all.

    Raises: InputError if there is nothing, the table or the name of the layout cannot be used, or a file has a name
        that cannot be a line of a text file.
    """
    known = named_layout(layout)
    if known is not None and policy.sizes == "refuse":
        policy = dataclasses.replace(policy, sizes=known.sizes)
    if is_table(path.name) and not os.path.isdir(path):
        if files is not None:
            raise InputError(f"files={files} chooses files of a folder, but {path} is a table, whose lines are the set")
        listed = read_table(path)
        _check_names(listed.names)
        sources, names = _listed_sources(path, listed, policy.choice)
        more = _for_set(path.parent, listed if table is None else read_table(table), sources)
        return Found(path, path.parent, sources, frozenset(names), policy, layout, more)
    own = own_tables(path)
    sources = tuple(find_sources(_matching(path, _image_files(path, own), files), policy.choice))
    known_of = read_own(own) if table is None else read_table(table)
    if known_of is not None:
        known_of = _for_set(path, known_of, sources)
    return Found(path, path, sources, None, policy, layout, known_of)


def describe_images(known: Table, table: Table | None, layout: LayoutName) -> Table:
    """What is known of images: classes and numbers of the table, else of the files, else of the folders.

    The part of an image is what any of them says: who is held out by one is held out.

    Args:
        known: their names, and what the files say.
    Raises: InputError if the table is about none of the images, an image does not lie where the layout has it, or a
        column of numbers is in both.
    """
    given = Table((), (), (), {})
    if table is not None and known.names:
        given = look_up(known.names, table)
        if all(name == "" for name in given.names):
            raise InputError(_no_match(table, known.names))
    labels, parts = labels_and_parts(known.names, layout)
    both = known.targets.keys() & given.targets.keys()
    if both:
        raise InputError(f"{', '.join(sorted(both))} of the images is in their files and in a table; rename the column")
    columns = [column for column in (given.parts, known.parts, parts) if any(column)]
    return Table(
        known.names,
        next((column for column in (given.labels, known.labels) if any(column)), labels),
        tuple(map(_part, zip(*columns, strict=True))) if columns else parts,
        {**known.targets, **given.targets},
    )


def _part(said: tuple[str | None, ...]) -> str:
    """The part of an image of a divided set: held out if anything says so, else for training."""
    return next((part for part in said if part not in (None, TRAIN)), None) or TRAIN


def _for_set(path: Path, table: Table, sources: Sequence[Source]) -> Table:
    """A table whose rows have the names of the set's files; it is said which rows and files are left over.

    Raises: InputError if it is about none of the files, unless their images could have names of their own.
    """
    files = [source.name for source in sources]
    found = match(files, table, path)
    matched = np.flatnonzero(found.rows >= 0)
    if not len(matched):
        if len(files) > 1 and not any(name.lower().endswith(".tar") for name in files):
            raise InputError(_no_match(table, files))
        return table
    names = list(found.names)
    if found.spelled:
        first = matched[0]
        shown = (table.path, found.spelled, names[found.rows[first]], files[first])
        logger.info("%s: images are found %s: %s is %s", *shown)
    if len(found.unmatched):
        level = logging.INFO if 2 * len(found.unmatched) <= len(names) else logging.WARNING
        rest = (table.path, len(found.unmatched), len(names), path, names[found.unmatched[0]])
        logger.log(level, "%s: %d of %d rows are about no image of %s, such as %s", *rest)
    if len(matched) < len(files):
        level = logging.INFO if 2 * len(matched) >= len(files) else logging.WARNING
        without = files[int(np.argmin(found.rows >= 0))]
        rest = (table.path, len(files) - len(matched), len(files), path, without)
        logger.log(level, "%s: %d of %d files of %s have no row, such as %s", *rest)
    for i in matched:
        names[found.rows[i]] = files[i]
    return table._replace(names=tuple(names), other_names=())


def _no_match(table: Table, names: Sequence[str]) -> str:
    row, near = nearest(table, names)
    return (
        f"the table {table.path} is about none of the {len(names)} images: its {row} is none of them, the nearest is "
        f"{near}; write the images' names into it, or remove it"
    )


def _listed_sources(path: Path, table: Table, choice: PlaneChoice) -> tuple[tuple[Source, ...], Sequence[str]]:
    """The files that a table lists, and the names of its images or files in the set."""
    root = path.parent
    files = sorted({name if os.path.isfile(root / name) else file_of(name) for name in table.names})
    if all(os.path.isfile(root / file) for file in files):
        return tuple(Source(file, (file,), choice=choice) for file in files), table.names
    there = {source.name: source for source in find_sources(_image_files(root, [path]), choice)}
    within = {name: file_of(name) for name in table.names if file_of(name) in there}  # as `file.npy#000012`
    found = match(list(there), table, root)
    if not (found.rows >= 0).any() and not within:
        raise InputError(_no_match(table, list(there)))
    listed = [name for name, row in zip(there, found.rows, strict=True) if row >= 0]
    gone = [table.names[row] for row in found.unmatched if table.names[row] not in within]
    used = sorted({*listed, *within.values()})
    sources = [*(there[name] for name in used), *(Source(name, (name,), choice=choice) for name in gone)]
    return tuple(sorted(sources, key=lambda source: source.name)), [*listed, *within, *gone]


def _matching(root: Path, names: list[str], pattern: str | None) -> list[str]:
    """The names that match a pattern of files: `*data.fits`, `VIS/*.fits`."""
    if pattern is None:
        return names
    if not pattern.strip("/. "):
        raise InputError(f"files={pattern!r} is not a pattern; give one such as '*data.fits'")
    matching = [name for name in names if PurePosixPath(name).match(pattern)]
    if not matching:
        raise InputError(
            f"files={pattern} matches none of the {len(names)} images in {root}, such as {names[0]}; give another "
            "pattern, such as '*data.fits'"
        )
    return matching


def _image_files(root: Path, tables: Sequence[Path]) -> list[str]:
    """Names of the image files in a folder, without the tables that have an image's suffix."""
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
        here = [Path(folder, file) for file in files]
        images = [path.relative_to(root).as_posix() for path in here if is_image(path.name) and path not in tables]
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
        raise InputError(f"path={root} {found}; give a folder of images, or a table: {SHOWN_SUFFIXES}")
    if os.path.isfile(root / SIMULATION) and not own_tables(root):
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
