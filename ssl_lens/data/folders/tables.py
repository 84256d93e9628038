"""What is known of images besides their pixels, as a CSV or Parquet table: classes, parts of a set, numbers."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
from pyarrow import compute

from ssl_lens.data.formats.limits import check_expansion
from ssl_lens.data.formats.reader import file_of
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.errors import InputError
from ssl_lens.files import check_regular

SUFFIXES = (".csv", ".parquet")
NAMES = tuple(stem + suffix for stem in ("targets", "parameters") for suffix in SUFFIXES)  # of a folder's own table
_MOST_TABLE = 2 << 30  # bytes: tens of millions of lines
_CSV = pyarrow.csv.ParseOptions(newlines_in_values=True)
LABEL_COLUMNS, PART_COLUMNS = ("label", "class"), ("part", "split")


class Table(NamedTuple):
    """One line per image.

    Attributes:
        names: of the images.
        labels: class of each, or None.
        parts: part of the set that each belongs to, such as train or test, or None.
        targets: numbers by name [N], float64, NaN where there is none.
    """

    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    parts: tuple[str | None, ...]
    targets: Mapping[str, np.ndarray]


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


def own_table(folder: Path) -> Path | None:
    """The table in a folder of images, if it has one."""
    return next((folder / name for name in NAMES if os.path.isfile(folder / name)), None)


def read_table(path: Path) -> Table:
    """Reads a table whose first column is the image's path relative to the table's folder, with `/`.

    A column `label` or `class` is the class, `part` or `split` the part of the set; other columns of numbers are
    targets, those of anything else are left out. Empty, null and NaN cells are missing.

    Raises: InputError if the table cannot be read, names an image twice or not at all, or a number is infinite.
    """
    try:
        size = check_regular(path)
    except InputError as error:
        raise InputError(f"table {error}") from None
    if not size:  # also of the system's own files, which would be waited for
        raise InputError(f"table {path} cannot be read (it is empty); give CSV with a header, or Parquet")
    if size > _MOST_TABLE:
        raise InputError(f"table {path} has more than {_MOST_TABLE} bytes; give a line per image, and no images")
    try:
        table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
        if len(set(table.column_names)) != len(table.column_names):
            raise InputError(f"table {path} has two columns of one name ({', '.join(table.column_names)}); rename one")
        names = table.column(0).cast(pyarrow.string()).to_pylist() if table.num_columns else []
        labels, parts = (_texts(table, columns, len(names)) for columns in (LABEL_COLUMNS, PART_COLUMNS))
    except (OSError, pyarrow.ArrowException, UnicodeError, UnusableImage) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"table {path} cannot be read ({reason}); give CSV with a header, or Parquet") from None
    if not names or None in names or "" in names:
        raise InputError(f"table {path} has no image's path in some line; its first column must be the paths")
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{path} has two lines for {twice}; keep one")
    columns = table.column_names[1:]
    targets = {}
    for column in columns:
        if column not in LABEL_COLUMNS + PART_COLUMNS and _is_number(table.schema.field(column).type):
            targets[column] = _numbers(path, names, column, table.column(column))
    return Table(tuple(names), labels, parts, targets)


def write_table(table: Table, path: Path) -> None:
    """Writes a table as CSV; labels, parts and targets that no image has are left out.

    Raises: InputError if a number has the name of a column that does not hold numbers.
    """
    taken = sorted({"name", *LABEL_COLUMNS, *PART_COLUMNS} & table.targets.keys())
    if taken:
        raise InputError(f"the number {taken[0]} of the images has the name of another column of the table; rename it")
    columns: dict[str, pyarrow.Array] = {"name": pyarrow.array(table.names, pyarrow.string())}
    for name, values in (("label", table.labels), ("part", table.parts)):
        if any(value is not None for value in values):
            columns[name] = pyarrow.array(values, pyarrow.string())
    for name, numbers in table.targets.items():
        columns[name] = pyarrow.array(numbers, pyarrow.float64(), mask=np.isnan(numbers))
    pyarrow.csv.write_csv(pyarrow.table(columns), path)


def look_up(names: Sequence[str], table: Table) -> Table:
    """What `table` says of these images, in their order; nothing where it has no line.

    An image `file.npy#000012` or `file.tar#KEY` has the line of its file if none is its own.
    """
    place = {name: i for i, name in enumerate(table.names)}
    files = [name if name in place else file_of(name) for name in names]
    lines = np.array([place.get(file, -1) for file in files], dtype=np.int64)
    targets = {name: np.append(values, np.nan)[lines] for name, values in table.targets.items()}
    labels, parts = (
        tuple(None if line < 0 else column[line] for line in lines) for column in (table.labels, table.parts)
    )
    return Table(tuple(names), labels, parts, targets)


def _read_parquet(path: Path) -> pyarrow.Table:
    with pyarrow.parquet.ParquetFile(path) as file:
        head = file.metadata
        unpacked = sum(head.row_group(i).total_byte_size for i in range(head.num_row_groups))
        cells = 8 * head.num_rows * head.num_columns  # a column that repeats one value is stored in a few bytes
        check_expansion(max(unpacked, cells), path.stat().st_size, "Parquet")
        return file.read()


def _read_csv(path: Path) -> pyarrow.Table:
    with pyarrow.csv.open_csv(path, parse_options=_CSV) as file:
        head = file.schema.names
    texts = {name: pyarrow.string() for name in (head[0], *LABEL_COLUMNS, *PART_COLUMNS)}  # not numbers, as in `007`
    missing = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "N/A", "NA"]
    return pyarrow.csv.read_csv(
        path,
        parse_options=_CSV,
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=texts, null_values=missing, strings_can_be_null=False, true_values=[], false_values=[]
        ),
    )


def _is_number(kind: pyarrow.DataType) -> bool:
    is_kind = pyarrow.types
    return is_kind.is_integer(kind) or is_kind.is_floating(kind) or is_kind.is_decimal(kind) or is_kind.is_boolean(kind)


def _numbers(path: Path, names: Sequence[str], column: str, values: pyarrow.ChunkedArray) -> np.ndarray:
    if pyarrow.types.is_boolean(values.type):
        values = values.cast(pyarrow.int8())
    numbers = compute.fill_null(values.cast(pyarrow.float64()), np.nan).to_numpy()
    if np.isinf(numbers).any():
        image = names[int(np.argmax(np.isinf(numbers)))]
        raise InputError(f"{path}: {column} of {image} is infinite; correct it or leave it empty")
    return numbers


def _texts(table: pyarrow.Table, columns: Sequence[str], count: int) -> tuple[str | None, ...]:
    column = next((name for name in columns if name in table.column_names), None)
    if column is None:
        return (None,) * count
    values = table.column(column)
    if pyarrow.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return tuple(value or None for value in values.cast(pyarrow.string()).to_pylist())
