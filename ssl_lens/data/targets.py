"""Numbers that belong to images: columns of a table, such as `ssl-lens simulate` writes beside its lenses."""

from __future__ import annotations

import csv
import difflib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.images import ImageSet
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

TABLES = ("targets.csv", "parameters.csv")  # looked for in this order


class Targets(NamedTuple):
    """Columns of a table, by image.

    Attributes:
        path: the table.
        columns: names of the T columns.
        values: for every image's name its values, float64 [T]; NaN where the table has none.
    """

    path: Path
    columns: tuple[str, ...]
    values: dict[str, np.ndarray]


def find_table(folder: Path) -> Path:
    """The table of targets in a folder of images.

    Raises: InputError if there is none.
    """
    for name in TABLES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} holds neither {' nor '.join(TABLES)}; give the table of targets with --targets FILE")


def read_targets(path: Path, columns: Sequence[str]) -> Targets:
    """Reads columns of a CSV table with one line of names and one line per image.

    The first column is the image's path relative to the folder of images, with `/`. Empty and NaN values are missing.

    Raises: InputError if the table cannot be read, lacks a column (the nearest names are given) or names an image
        twice, or a value is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            head, *lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise InputError(f"table of targets {path} cannot be read ({error}); give a CSV file with a header") from None
    places = [_place(path, head, column) for column in columns]
    values: dict[str, np.ndarray] = {}
    for line in lines:
        if line[0] in values:
            raise InputError(f"{path} has two lines for {line[0]}; keep one")
        cells = [line[place] if place < len(line) else "" for place in places]
        row = [_number(path, line[0], column, cell) for column, cell in zip(columns, cells, strict=True)]
        values[line[0]] = np.array(row)
    return Targets(path, tuple(columns), values)


def with_targets(images: ImageSet, targets: Targets) -> tuple[ImageSet, np.ndarray]:
    """The images that have all targets, and these, float64 [M, T]; how many have not is told in the log.

    Raises: InputError if fewer than two have.
    """
    missing = np.full(len(targets.columns), np.nan)
    values = np.stack([targets.values.get(name, missing) for name in images.names])
    known = np.isfinite(values).all(axis=1)
    columns = ", ".join(targets.columns)
    if known.sum() < 2:
        raise InputError(
            f"{targets.path} gives {columns} for {known.sum()} of {len(images)} images; its first column must be their "
            f"paths, such as {images.names[0]}"
        )
    if not known.all():
        unlisted = sum(name not in targets.values for name in images.names)
        logger.info(
            "%d of %d images left out: %d without a line in %s, %d without a value of %s",
            len(images) - known.sum(),
            len(images),
            unlisted,
            targets.path,
            len(images) - known.sum() - unlisted,
            columns,
        )
        images = images.subset(np.flatnonzero(known))
    return images, values[known]


def _place(path: Path, head: list[str], column: str) -> int:
    if column in head[1:]:
        return head.index(column, 1)
    close = difflib.get_close_matches(column, head[1:], n=3, cutoff=0.5)
    names = f"the nearest are {', '.join(close)}" if close else f"it has {', '.join(head[1:])}"
    raise InputError(f"--target {column} is no column of {path}; {names}")


def _number(path: Path, image: str, column: str, cell: str) -> float:
    if not cell.strip():
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise InputError(f"{path}: {column} of {image} is {cell!r}, not a number; correct it or leave it empty")
    return number
