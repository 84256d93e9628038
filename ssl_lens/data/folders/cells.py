"""What the cells of a table mean: texts, numbers, and those that stand for nothing."""

from __future__ import annotations

import datetime
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssl_lens.errors import InputError

# As pandas, spreadsheets, catalogues and people write that nothing is known.
_MISSING = re.compile(
    r"|#?n/a(?: n/a)?|#?na|#null!|#value!|<na>|n\.a\.|[+-]?nan|-?1\.#(?:ind|qnan)|nat|null|\\n"
    r"|[-\u2013\u2014]{1,3}|\?|\.{3}|masked|missing",
    re.IGNORECASE,
)
_SENTINEL = re.compile(r"-9{2,}(?:\.0*)?")  # such as -99, which catalogues write for it
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?")
_INFINITE = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
_TRUTH = {"true": 1.0, "false": 0.0}


class NotPlain(InputError):  # noqa: N818 (it names the state of the cell)
    """A cell that should be a text or a number holds something else."""


class Numbers(NamedTuple):
    """A column of numbers.

    Attributes:
        values: [N], float64, NaN where there is none.
        odd: the line, counted from 0, and the text of the first cell that is not a number.
        missing: the sentinels that were taken for missing, such as -99, and how many there are.
    """

    values: np.ndarray
    odd: tuple[int, str] | None
    missing: Counter[str]


def texts(cells: Sequence[object]) -> list[str | None]:
    """Cells as texts, None where one is missing; whole numbers that became floats, `7.0`, are whole again.

    Raises: NotPlain if one is neither a text nor a number.
    """
    found = [_text(cell) for cell in cells]
    given = [text for text in found if text is not None]
    if any("." in text for text in given) and all(_WHOLE.fullmatch(text) for text in given):
        return [None if text is None else text.split(".")[0] for text in found]
    return found


def labels(cells: Sequence[object]) -> tuple[list[str | None], Counter[str]]:
    """Cells as classes, None where one is missing, and which cells were taken for missing, how often.

    Besides what stands for nothing everywhere, of whole numbers -99, -999 and the like are missing, and -1 where the
    others are 0 and more, and at least two.

    Raises: NotPlain as `texts`.
    """
    found = texts(cells)
    missing: Counter[str] = Counter(str(cell).strip() for cell, text in zip(cells, found, strict=True) if text is None)
    given = {text for text in found if text is not None}
    if all(_WHOLE.fullmatch(text) for text in given):
        sentinels = {text for text in given if _SENTINEL.fullmatch(text)}
        others = {int(text) for text in given - sentinels}
        if "-1" in given and min(others - {-1}, default=-1) >= 0 and len(others) > 2:
            sentinels.add("-1")
        missing.update(text for text in found if text in sentinels)
        found = [None if text in sentinels else text for text in found]
    return found, missing


def numbers(cells: Sequence[object]) -> Numbers | None:
    """Cells as numbers; None if most are something else.

    Decimals may have a comma where no cell could be thousands. -99, -999 and the like are missing where no other number
    is negative.
    """
    values, odd = np.full(len(cells), math.nan), []
    comma = _decimal_comma(cells)
    for i, cell in enumerate(cells):
        value = _value(cell, comma)
        if value is None:
            odd.append(i)
        else:
            values[i] = value
    known = int((~np.isnan(values)).sum())
    if not known or known <= len(odd):
        return None
    negative = values[values < 0]
    sentinels = np.array([bool(_SENTINEL.fullmatch(f"{value:g}")) for value in negative], dtype=bool)
    missing: Counter[str] = Counter()
    if len(negative) and sentinels.all() and len(negative) < known:
        missing.update(f"{value:g}" for value in negative)
        values[values < 0] = math.nan
    return Numbers(values, (odd[0], str(cells[odd[0]]).strip()) if odd else None, missing)


def _text(cell: object) -> str | None:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str):
        text = cell.strip()
        return None if _MISSING.fullmatch(text) else text
    if isinstance(cell, int | float | datetime.date):
        return str(cell)
    raise NotPlain(f"a {type(cell).__name__}, which is neither a text nor a number")


def _decimal_comma(cells: Sequence[object]) -> bool:
    with_comma = [cell.strip() for cell in cells if isinstance(cell, str) and "," in cell]
    return any(_COMMA.fullmatch(cell) and not _THOUSANDS.fullmatch(cell) for cell in with_comma)


def _value(cell: object, comma: bool) -> float | None:
    """A cell's number, NaN if it is missing, None if it is something else."""
    if isinstance(cell, bool | int | float):
        return float(cell)
    if cell is None:
        return math.nan
    if not isinstance(cell, str):
        return None
    text = cell.strip()
    lower = text.lower()
    if comma and _COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if _NUMBER.fullmatch(text):
        return float(text.translate(_FORTRAN))
    if _MISSING.fullmatch(text) or lower == "none":  # which may be a class
        return math.nan
    return math.copysign(math.inf, -1 if text[0] == "-" else 1) if lower in _INFINITE else _TRUTH.get(lower)


_FORTRAN = str.maketrans("dD", "ee")  # exponents as Fortran writes them
