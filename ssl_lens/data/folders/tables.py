"""What is known of images besides their pixels, as a table: classes, parts of a set, numbers."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv

from ssl_lens.data.folders import cells, headers
from ssl_lens.data.folders.columns import class_column, name_columns, parts_of
from ssl_lens.data.folders.table_file import Column, read_columns
from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

_CSV = pyarrow.csv.ParseOptions(newlines_in_values=True)
_TEXTS = ("name", "label", "part")  # columns of a table that was written here; the others are numbers


class Table(NamedTuple):
    """One line per image.

    Attributes:
        names: of the images.
        labels: class of each, or None.
        parts: part of the set that each belongs to, such as train or test, or None.
        targets: numbers by name [N], float64, NaN where there is none.
        other_names: what else could be the images' names, where `names` are not.
        path: file that it was read from, if there is one.
    """

    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    parts: tuple[str | None, ...]
    targets: Mapping[str, np.ndarray]
    other_names: tuple[tuple[str, ...], ...] = ()
    path: Path | None = None


class GrowingTable:
    """A table made line by line, of what the files themselves say."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._labels: list[str | None] = []
        self._targets: dict[str, list[float]] = {}

    def add(self, name: str, label: str | None, targets: Mapping[str, float]) -> None:
        for column in self._targets.keys() | targets.keys():
            values = self._targets.setdefault(column, [math.nan] * len(self.names))
            values.append(targets.get(column, math.nan))
        self.names.append(name)
        self._labels.append(label)

    def table(self) -> Table:
        targets = {column: np.array(self._targets[column]) for column in sorted(self._targets)}
        return Table(tuple(self.names), tuple(self._labels), (None,) * len(self.names), targets)


def read_table(path: Path) -> Table:
    """Reads a table that somebody made: one line an image, with its name, its class, its part of the set, and numbers.

    Columns are found by their headers, in any spelling, and by what they hold (`columns`); a table without headers has
    names, or names and classes. Lines that are the same are one. What was taken for missing and what was left out is
    logged.

    Raises: InputError if the table cannot be read, a line has no image's name, two lines of one image differ, a number
        is infinite, or it is not clear what a column means.
    """
    try:
        return _without_repetitions(path, _meant(path, *read_columns(path)))
    except cells.NotPlain as error:
        raise InputError(
            f"table {path} cannot be used: a name, class or part is {error}; write texts or numbers there"
        ) from None


def _meant(path: Path, columns: Sequence[Column], named: bool) -> Table:
    """What the columns of a table say."""
    naming = name_columns(columns, named=named)
    if not naming:
        raise InputError(f"no column of table {path} names images; add one called name")
    others = [column for column in columns if column not in naming]
    parts, used = parts_of(str(path), others, len(columns[0].cells))
    others = [column for column in others if column not in used]
    classes = class_column(str(path), others, named=named)
    names = _names(path, naming[0])
    labels = [None] * len(names) if classes is None else _labels(path, classes)
    targets, left_out = _targets(path, names, [column for column in columns if column is not naming[0]], used, classes)
    if left_out:
        logger.info("%s: columns that are no class, part or number are left out: %s", path, ", ".join(left_out))
    return Table(names, tuple(labels), tuple(parts), targets, tuple(_other_names(naming[1:])), path)


def rows(table: Table, index: Sequence[int] | np.ndarray) -> Table:
    """The lines of a table at `index`, in that order; -1 is a line that says nothing."""
    targets = {name: np.append(values, math.nan)[index] for name, values in table.targets.items()}
    names, labels, parts = (
        tuple(None if i < 0 else column[i] for i in index) for column in (table.names, table.labels, table.parts)
    )
    others = tuple(tuple("" if i < 0 else column[i] for i in index) for column in table.other_names)
    return Table(tuple(name or "" for name in names), labels, parts, targets, others, table.path)


def joined(tables: Mapping[Path, Table]) -> Table:
    """Several tables as one, by the images' names: what one says of an image and the others do not is said.

    Raises: InputError if two say different things of an image.
    """
    names = list(dict.fromkeys(name for table in tables.values() for name in table.names))
    place = {name: i for i, name in enumerate(names)}
    labels: list[str | None] = [None] * len(names)
    parts: list[str | None] = [None] * len(names)
    targets: dict[str, np.ndarray] = {}
    for path, table in tables.items():
        index = np.array([place[name] for name in table.names], dtype=np.int64)
        for column, own in ((labels, table.labels), (parts, table.parts)):
            for i, word in zip(index, own, strict=True):
                if word is not None and column[i] not in (None, word):
                    raise InputError(f"{names[i]} is {column[i]} in one table and {word} in {path}; correct one")
                column[i] = word if word is not None else column[i]
        for name, values in table.targets.items():
            known = targets.setdefault(name, np.full(len(names), math.nan))
            new = np.isfinite(values)
            if (np.isfinite(known[index]) & new & (known[index] != values)).any():
                raise InputError(f"{name} differs between {path} and another table for the same image; correct one")
            known[index[new]] = values[new]
    return Table(tuple(names), tuple(labels), tuple(parts), targets, path=next(iter(tables)))


def write_table(table: Table, path: Path) -> None:
    """Writes a table as CSV; labels, parts and targets that no image has are left out.

    Raises: InputError if a number has the name of a column that does not hold numbers.
    """
    taken = sorted({*_TEXTS, "class", "split"} & table.targets.keys())
    if taken:
        raise InputError(f"the number {taken[0]} of the images has the name of another column of the table; rename it")
    columns: dict[str, pyarrow.Array] = {"name": pyarrow.array(table.names, pyarrow.string())}
    for name, values in (("label", table.labels), ("part", table.parts)):
        if any(value is not None for value in values):
            columns[name] = pyarrow.array(values, pyarrow.string())
    for name, numbers in table.targets.items():
        columns[name] = pyarrow.array(numbers, pyarrow.float64(), mask=np.isnan(numbers))
    pyarrow.csv.write_csv(pyarrow.table(columns), path)


def read_written(path: Path) -> Table:
    """Reads what `write_table` wrote, as it was.

    Raises: InputError if it cannot be read.
    """
    try:
        texts = dict.fromkeys(_TEXTS, pyarrow.string())
        options = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
        table = pyarrow.csv.read_csv(path, parse_options=_CSV, convert_options=options)
        names, labels, parts = (
            table.column(name).to_pylist() if name in table.column_names else [""] * table.num_rows for name in _TEXTS
        )
        targets = {
            name: table.column(name).cast(pyarrow.float64()).fill_null(math.nan).to_numpy()
            for name in table.column_names
            if name not in _TEXTS
        }
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"table {path} cannot be read ({reason}); make it again") from None
    return Table(tuple(names), tuple(label or None for label in labels), tuple(part or None for part in parts), targets)


def _names(path: Path, column: Column) -> tuple[str, ...]:
    found = [_name(cell) for cell in column.cells]
    if None in found:
        raise InputError(
            f"table {path} has no image's name in row {found.index(None) + 1} of column {column.name or 1}; "
            "write it there, or remove the row"
        )
    return tuple(name for name in found if name is not None)


def _name(cell: object) -> str | None:
    """A name as it is, though it be called `nan`."""
    return (cell.strip() or None) if isinstance(cell, str) else cells.texts([cell])[0]


def _other_names(naming: Sequence[Column]) -> Iterable[tuple[str, ...]]:
    for column in naming:
        names = [_name(cell) for cell in column.cells if isinstance(cell, str | int | float)]
        known = tuple(name for name in names if name is not None)
        if len(set(known)) == len(column.cells):
            yield known


def _labels(path: Path, column: Column) -> list[str | None]:
    labels, missing = cells.labels(column.cells)
    if missing:
        shown = ", ".join(f"{cell!r} ({count})" for cell, count in missing.most_common(5))
        logger.info("%s: %d rows have no class in %s: %s", path, missing.total(), column.name or "it", shown)
    return labels


def _targets(
    path: Path, names: Sequence[str], columns: Sequence[Column], parts: Sequence[Column], classes: Column | None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The columns of numbers, and the names of those that are nothing."""
    targets, left_out = {}, []
    for column in columns:
        surely = headers.meaning(column.name) == "class"
        if surely or column in parts or headers.meaning(column.name) == "count":
            continue
        found = cells.numbers(column.cells)
        if found is None or found.odd is not None:
            if column is not classes:
                left_out.append(column.name)
            if found is not None and found.odd is not None:
                logger.warning(
                    "%s: column %s is left out, since %r of %s (row %d) is not a number; correct it or leave it empty",
                    *(path, column.name, found.odd[1], names[found.odd[0]], found.odd[0] + 1),
                )
            continue
        if np.isinf(found.values).any():
            image = names[int(np.argmax(np.isinf(found.values)))]
            raise InputError(f"{path}: {column.name} of {image} is infinite; correct it or leave it empty")
        for cell, count in found.missing.items():
            logger.info("%s: %d cells of %s are %s, taken for missing", path, count, column.name, cell)
        targets[column.name] = found.values
    return targets, left_out


def _without_repetitions(path: Path, table: Table) -> Table:
    """Of lines for one image that say the same, the first."""
    if len(set(table.names)) == len(table.names):
        return table
    first: dict[str, int] = {}
    for i, name in enumerate(table.names):
        before = first.setdefault(name, i)
        if before == i:
            continue
        pairs = [(column[before], column[i]) for column in (table.labels, table.parts)]
        same = all(np.array_equal(values[before], values[i], equal_nan=True) for values in table.targets.values())
        if not same or any(one != other for one, other in pairs):
            raise InputError(f"{path} has two rows for {name} that differ, {before + 1} and {i + 1}; keep one")
    kept = list(first.values())
    logger.info("%s: %d rows repeat others and are left out", path, len(table.names) - len(kept))
    return rows(table, kept)
