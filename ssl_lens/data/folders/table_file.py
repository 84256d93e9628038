"""Files of tables to columns: text with any separator, Parquet, FITS, VOTable and ECSV."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pyarrow.parquet

from ssl_lens.data.folders.headers import is_known
from ssl_lens.data.formats.fits_structure import check_units
from ssl_lens.data.formats.limits import check_expansion
from ssl_lens.data.formats.reader import is_image
from ssl_lens.errors import InputError
from ssl_lens.files import check_regular

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".dat")
FITS_SUFFIXES = (".fits", ".fit")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".ecsv", ".vot", ".votable", ".xml", *FITS_SUFFIXES)
SHOWN_SUFFIXES = ".csv .tsv .txt .parquet .fits .vot .ecsv"

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 30  # of a table's file
_SEPARATORS = ("\t", ";", "|", ",")
_SNIFFED = 200  # lines
_COMMENT = re.compile(r"\s*#(?!N/A|NA\b|NULL!|VALUE!|REF!|DIV/0!)", re.IGNORECASE)  # those are cells of spreadsheets
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False)
class Column:
    """One column: its name, empty if the file gives none, and a cell for each row."""

    name: str
    cells: Sequence[object]


def read_columns(path: Path) -> tuple[list[Column], bool]:
    """The columns of a table's file, and whether it names them.

    Raises: InputError if it cannot be read, has no lines, or names two columns alike.
    """
    try:
        size = check_regular(path)
        if not size:  # also of the system's own files, which would be waited for
            raise InputError("it is empty")
        if size > _MOST_BYTES:
            raise InputError(f"it has more than {_MOST_BYTES} bytes; give a line per image, and no images")
        columns, named = _reader(path)(path)
    except Exception as error:  # damaged files make the libraries raise far more than OSError and ValueError
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"table {path} cannot be read ({reason}); give one with a header, one row an image: {SHOWN_SUFFIXES}"
        ) from None
    columns = [Column(column.name.strip(), column.cells) for column in columns if column.name or _is_filled(column)]
    if not columns or not columns[0].cells:
        raise InputError(f"table {path} has no rows; it needs a header and one row an image")
    names = [column.name for column in columns if column.name]
    if len(set(names)) != len(names):
        raise InputError(f"table {path} has two columns of one name ({', '.join(names)}); rename one")
    return columns, named


def _is_filled(column: Column) -> bool:
    return any(cell not in (None, "") for cell in column.cells)


def _reader(path: Path) -> Callable[[Path], tuple[list[Column], bool]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _read_parquet
    if suffix in ("", *TEXT_SUFFIXES):
        return _read_text
    if suffix in SUFFIXES:
        return _read_astropy
    raise InputError(f"files {suffix} are not read; save it as CSV")


def _read_parquet(path: Path) -> tuple[list[Column], bool]:
    with pyarrow.parquet.ParquetFile(path) as file:
        head = file.metadata
        unpacked = sum(head.row_group(i).total_byte_size for i in range(head.num_row_groups))
        cells = 8 * head.num_rows * head.num_columns  # a column that repeats one value is stored in a few bytes
        check_expansion(max(unpacked, cells), path.stat().st_size, "Parquet")
        table = file.read()
    columns = [Column(name, table.column(i).to_pylist()) for i, name in enumerate(table.column_names)]
    return [_plain(column) for column in columns], True


def _read_astropy(path: Path) -> tuple[list[Column], bool]:
    from astropy.table import Table

    suffix = path.suffix.lower()
    kind = "fits" if suffix in FITS_SUFFIXES else "ascii.ecsv" if suffix == ".ecsv" else "votable"
    check = {"fits": _check_fits, "votable": _check_votable}.get(kind)
    if check is not None:
        check(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format=kind)
        if kind == "fits":  # what is stored as bytes is text
            table.convert_bytestring_to_unicode()
    columns = []
    for name in table.colnames:
        values = table[name]
        if getattr(values, "ndim", 1) == 1:
            mask = np.broadcast_to(np.ma.getmaskarray(np.ma.asarray(values)), len(values))
            plain = np.asarray(getattr(values, "value", values)).tolist()
            cells = [None if hidden else cell for hidden, cell in zip(mask, plain, strict=True)]
            columns.append(_plain(Column(str(name), cells)))
    return columns, True


def _check_fits(path: Path) -> None:
    """Refuses headers of absurd forms, which astropy believes."""
    from astropy.io import fits

    with path.open("rb") as file:
        check_units(file, path.stat().st_size)
        file.seek(0)
        with warnings.catch_warnings(), fits.open(file, memmap=False) as units:
            warnings.simplefilter("ignore")
            for unit in units:
                if isinstance(unit, fits.BinTableHDU | fits.TableHDU):
                    width, declared = unit.columns.dtype.itemsize, unit.header["NAXIS1"]
                    if not 0 < width <= declared:
                        raise InputError(f"its columns take {width} bytes of a row of {declared}: damaged")


def _check_votable(path: Path) -> None:
    """Refuses data that lie elsewhere, which astropy would fetch, and entities, which expand."""

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == "STREAM" and "href" in attributes:
            raise InputError(f"its data lie in {attributes['href']}, which is not followed; save the table whole")

    def declare(name: str, *_: object) -> None:
        raise InputError(f"it declares the entity {name}; save it without")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EntityDeclHandler = start, declare
    with path.open("rb") as file:
        parser.ParseFile(file)


def _plain(column: Column) -> Column:
    return Column(column.name, [_plain_cell(cell) for cell in column.cells])


def _plain_cell(cell: object) -> object:
    """Bytes as text, decimals as numbers; lists and the like stay, for whoever needs that column to refuse."""
    if isinstance(cell, bytes):
        try:
            return cell.decode("utf-8")
        except UnicodeDecodeError:
            return cell
    return float(cell) if isinstance(cell, Decimal) else cell


def _read_text(path: Path) -> tuple[list[Column], bool]:
    text = _decoded(path)
    comments, lines = _comments(text)
    separator = _separator(lines[:_SNIFFED])
    if separator is None:
        rows = list(
            csv.reader((line.replace("\t", " ").strip() for line in lines), delimiter=" ", skipinitialspace=True)
        )
        if len({len(row) for row in rows}) > 1 and len({len(row) for row in rows[1:]} | {len(rows[0]) + 1}) > 1:
            rows = [[line.strip()] for line in lines]
    else:
        reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator, skipinitialspace=True, strict=True)
        rows = [row for row in reader if any(cell.strip() for cell in row)]
    if not rows:
        raise InputError("it is empty")
    header = _header(rows, comments, separator)
    body = rows if header is None or header is not rows[0] else rows[1:]
    width = len(header or rows[0])
    if header is not None and body and all(len(row) == width + 1 for row in body):  # as R writes its row names
        header, width = ["", *header], width + 1
    for i, row in enumerate(body, start=1):
        if len(row) != width:
            raise InputError(f"row {i} has {len(row)} cells where {width} are needed: {' '.join(row)[:60]}")
    cells = [[_unquoted(row[i]) for row in body] for i in range(width)]
    names = [""] * width if header is None else [_unquoted(name) for name in header]
    return [Column(name, column) for name, column in zip(names, cells, strict=True)], header is not None


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16")
    elif len(data) > 1 and 0 in data[:2]:  # as UTF-16 without its mark: every other byte of plain letters is 0
        text = data.decode("utf-16-le" if data[1] == 0 else "utf-16-be")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252")
            logger.info("%s is not UTF-8: read as Windows-1252, as spreadsheets write", path)
    if "\0" in text:
        raise InputError("it holds NUL bytes, so that it is no text")
    return text


def _comments(text: str) -> tuple[list[str], list[str]]:
    """The comment lines before the first line of the table, and the other lines."""
    comments: list[str] = []
    lines: list[str] = []
    quoted = False  # whether a line begins within a text of several lines
    for line in re.split(r"\r\n|\n|\r", text):
        if not quoted and _COMMENT.match(line):
            if not lines:
                comments.append(line.lstrip()[1:])
            continue
        if not quoted and re.fullmatch("sep=.", line.strip(), re.IGNORECASE):  # for Excel alone
            continue
        quoted ^= line.count('"') % 2 == 1
        if line.strip() or quoted:
            lines.append(line)
    return comments, lines


def _separator(lines: Sequence[str]) -> str | None:
    """The one by which all lines have as many cells; None for blanks, or a single column."""
    best, most = None, 0.5
    for separator in _SEPARATORS:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
        if not counts or counts[0] < 2:
            continue
        alike = sum(count in (counts[0], counts[0] + 1) for count in counts) / len(counts)
        if alike > most:
            best, most = separator, alike
    return best


def _header(rows: list[list[str]], comments: Sequence[str], separator: str | None) -> list[str] | None:
    """The names of the columns: of the first line, unless that is an image's; else of the last comment."""
    first = rows[0]
    if comments:
        last = comments[-1].split(separator) if separator else comments[-1].split()
        if len(last) == len(first) and any(is_known(cell) for cell in last) and not any(map(is_known, first)):
            return [cell.strip() for cell in last]
    return None if _is_data(first) else first


def _is_data(row: Sequence[str]) -> bool:
    """Whether a line cannot be a header: it has an image's file, or numbers and no name that columns have."""
    cells = [_unquoted(cell) for cell in row]
    if any(is_image(re.split(r"[/\\\\]", cell)[-1]) for cell in cells):
        return True
    return cells[0] != "" and any(map(_NUMBER.fullmatch, cells)) and not any(map(is_known, cells))


def _unquoted(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "'\"" else cell
