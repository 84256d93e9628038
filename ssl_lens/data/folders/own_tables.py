"""The tables that lie in a folder of images: the one that describes them, and lists of the parts of the set."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ssl_lens.data.folders.headers import squashed
from ssl_lens.data.folders.parts import part_called
from ssl_lens.data.folders.table_file import FITS_SUFFIXES, SUFFIXES
from ssl_lens.data.folders.tables import Table, joined, read_table
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

# Files of these names are about the images around them; others may be anything.
_ABOUT = re.compile("targets?|parameters?|labels?|catalog(?:ue)?|metadata|annotations?|(?:ground)?truth|splits?")
_UNREAD_SUFFIXES = (".xlsx", ".xls", ".ods", ".json", ".jsonl", ".feather", ".pkl")
_SURELY_TABLES = (".csv", ".tsv", ".parquet", ".ecsv", ".vot", ".votable")


def is_table(name: str) -> bool:
    """Whether a file of this name is taken for a table: by its suffix."""
    return name.lower().endswith(SUFFIXES)


def own_tables(folder: Path) -> list[Path]:
    """The tables in a folder of images that are about them: one called `targets`, `parameters`, `labels`, `catalog` or
    the like, and lists called after parts, such as `train.csv` and `test.txt`.

    Raises: InputError if several describe the images, or one is of a kind that is not read.
    """
    try:
        there = sorted(os.listdir(folder))
    except (OSError, ValueError):  # for whoever looks for its images to report
        return []
    readable = (*SUFFIXES, *_UNREAD_SUFFIXES)
    names = [name for name in there if name.lower().endswith(readable) and not name.startswith(".")]
    names = [name for name in names if _is_about(name) or not _is_fits(name)]  # a survey has many FITS files
    names = [name for name in names if os.path.isfile(folder / name)]
    about = [name for name in names if _is_about(name)]
    unread = [name for name in about if name.lower().endswith(_UNREAD_SUFFIXES)]
    tables = [name for name in about if is_table(name)]
    if unread and not tables:
        raise InputError(f"{folder / unread[0]} is a kind of table that is not read; save it as CSV, or rename it")
    if len(tables) > 1:
        raise InputError(
            f"{folder} holds several tables of its images ({', '.join(tables)}); keep one, rename the others"
        )
    lists = [name for name in names if is_table(name) and part_called(_stem(name)) is not None]
    others = [name for name in names if name.lower().endswith(_SURELY_TABLES) and name not in (*tables, *lists)]
    if others:
        logger.warning(
            "%s is not read; if it says what the images are, call it targets%s",
            folder / others[0],
            Path(others[0]).suffix,
        )
    return [folder / name for name in (*tables, *lists)]


def read_own(tables: Sequence[Path]) -> Table | None:
    """What the tables of a folder say of its images; None if there are none. A list's name is the part of its images.

    Raises: InputError if one cannot be read, or two contradict each other.
    """
    read = {}
    for path in tables:
        table, part = read_table(path), part_called(_stem(path.name))
        if part is not None and not any(table.parts):
            table = table._replace(parts=(part,) * len(table.names))
        read[path] = table
    if len(read) <= 1:
        return next(iter(read.values()), None)
    return joined(read)


def _is_about(name: str) -> bool:
    return _ABOUT.fullmatch(squashed(_stem(name))) is not None


def _stem(name: str) -> str:
    return name[: name.rindex(".")] if "." in name else name


def _is_fits(name: str) -> bool:
    return name.lower().endswith(FITS_SUFFIXES)
