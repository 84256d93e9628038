"""Which columns of a table are the images' names, their class and their part of the set."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ssl_lens.data.folders import cells, headers
from ssl_lens.data.folders.parts import TRAIN, Part, part_called
from ssl_lens.data.folders.table_file import Column
from ssl_lens.data.formats.reader import file_of, is_image
from ssl_lens.errors import InputError

_FLAGS = {"1": True, "0": False, "true": True, "false": False, "yes": True, "no": False, "y": True, "n": False}
_FLAGS |= {"t": True, "f": False}
_FOLD = re.compile(r"(?:k|cv)?[ _-]?(?:folds?)?[ _-]?-?\d+(?:\.0*)?", re.IGNORECASE)
_MOST_CLASSES = 100  # of a column that may be classes or something else
_MOST_PARTS = 10
_GROUP = re.compile(r"(?:class|label|is|target|category)[_ .:-]+", re.IGNORECASE)


def name_columns(columns: Sequence[Column], *, named: bool) -> list[Column]:
    """The columns that may name images, the likeliest first: those of image files, of files by their header, of ids by
    their header, then the first; one that counts lines only if there is no other.

    Args:
        named: whether the columns have headers.
    """
    firsts = [column for column in columns if not (named and (_is_other(column.name) or _counts(column)))]

    def rank(column: Column) -> int | None:
        word = headers.meaning(column.name)
        if sum(isinstance(cell, str) and _is_file(cell) for cell in column.cells) * 2 > len(column.cells):
            return 0
        if word == "file" and column in firsts:
            return 1
        if word == "id" or (named and word == "count" and column in firsts):
            return 2
        return 3 if column is next(iter(firsts), None) else None

    ranked = [(found, i) for i, column in enumerate(columns) if (found := rank(column)) is not None]
    if not named:
        ranked = sorted(ranked)[:1]
    return [columns[i] for _, i in sorted(ranked)] or [column for column in columns if _counts(column)]


def _is_other(header: str) -> bool:
    return headers.meaning(header) in ("class", "maybe_class", "part")


def _counts(column: Column) -> bool:
    """Whether a column only counts lines, as those that pandas writes."""
    if headers.meaning(column.name) != "count":
        return False
    counted = [str(cell) for cell in column.cells]
    return any(counted == [str(i) for i in range(first, first + len(counted))] for first in (0, 1))


def class_column(table: str, columns: Sequence[Column], *, named: bool) -> Column | None:
    """The column of classes: by its header, or put together from columns of 0 and 1 of which each line has one 1.

    Args:
        columns: that are neither names nor parts.
        named: whether they have headers; without, the only one is it.

    Raises: InputError if two columns could be it and do not say the same.
    """
    if not named:
        if len(columns) > 1 or any(_is_measured(column) for column in columns):
            raise InputError(f"table {table} has no header to say what its columns are; add one, such as name,label")
        return columns[0] if columns else None
    sure = [column for column in columns if headers.meaning(column.name) == "class" and not _is_measured(column)]
    if not sure and (together := _one_hot(columns)) is not None:
        return together
    if not sure:
        maybe = [column for column in columns if headers.meaning(column.name) == "maybe_class"]
        sure = [column for column in maybe if _is_discrete(column)]
    for other in sure[1:]:
        pairs = set(zip(cells.labels(sure[0].cells)[0], cells.labels(other.cells)[0], strict=True))
        if len(pairs) != len({first for first, _ in pairs}) or len(pairs) != len({second for _, second in pairs}):
            raise InputError(f"table {table} has the classes twice, in {sure[0].name} and {other.name}; keep one")
    words = [column for column in sure if not _is_whole(column)]  # `lens` rather than 1
    return next(iter(words + sure), None)


def parts_of(table: str, columns: Sequence[Column], count: int) -> tuple[list[Part | None], list[Column]]:
    """The part of each line, and the columns that say so: `part` or `split`, those that hold nothing but such words,
    and those of yes and no called `is_test`, `holdout`, `train`.

    Raises: InputError if a cell of `part` or `split` is no part, or two columns contradict each other.
    """
    found: list[Part | None] = [None] * count
    used: list[Column] = []
    for column in columns:
        says = _says(table, column)
        if says is None:
            continue
        used.append(column)
        for i, part in enumerate(says):
            before = found[i]
            if part is not None and before is not None and (part == TRAIN) != (before == TRAIN):
                names = ", ".join(other.name for other in used)
                raise InputError(f"table {table}: the columns {names} contradict each other in row {i + 1}; keep one")
            found[i] = before or part
    return found, used


def _says(table: str, column: Column) -> list[Part | None] | None:
    """What a column says of the parts; None if it is about something else."""
    strict = headers.meaning(column.name) == "part"
    flag = headers.flag_of_part(column.name)
    if not strict and flag is None:
        is_class = headers.meaning(column.name) in ("class", "maybe_class")
        if is_class or not all(cell is None or isinstance(cell, str) for cell in column.cells):
            return None
    words = cells.texts(column.cells)
    given = {word for word in words if word is not None}
    if not strict and len(given) > _MOST_PARTS:
        return None
    meant = {word: part_called(word) for word in given}
    if given and None not in meant.values():
        return [None if word is None else meant[word] for word in words]
    if flag is not None and given and all(word.lower() in _FLAGS for word in given):
        other: Part = "test" if flag == TRAIN else TRAIN
        return [None if word is None else flag if _FLAGS[word.lower()] else other for word in words]
    if not strict or not given:
        return None
    if all(_FOLD.fullmatch(word) for word in given):
        raise InputError(
            f"table {table}: column {column.name} holds the numbers {', '.join(sorted(given)[:6])}, as folds have, and "
            "does not say which images are for tests; write test there for those to hold out and train for the others, "
            "or call the column fold"
        )
    odd = next(i for i, word in enumerate(words) if word is not None and meant[word] is None)
    raise InputError(
        f"table {table}: {column.name} in row {odd + 1} is {words[odd]}, not a part of a set; write train, val or "
        "test, or call the column something else"
    )


def _one_hot(columns: Sequence[Column]) -> Column | None:
    flags = [column for column in columns if _is_flag(column)]
    for group in (flags, [column for column in flags if _GROUP.match(column.name)]):
        rows = list(zip(*(map(_truth, column.cells) for column in group), strict=True))
        if len(group) > 1 and all(sum(row) == 1 for row in rows) and all(map(any, zip(*rows, strict=True))):
            names = [column.name for column in group]
            if all(map(_GROUP.match, names)):
                names = [_GROUP.sub("", name, count=1) for name in names]
            return Column(", ".join(column.name for column in group), [names[row.index(1)] for row in rows])
    return None


def _is_flag(column: Column) -> bool:
    return all(_truth(cell) is not None for cell in column.cells)


def _truth(cell: object) -> int | None:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}.get(str(cell).strip().lower())


def _is_file(cell: str) -> bool:
    return is_image(re.split(r"[/\\]", file_of(cell.strip()))[-1])


def _is_measured(column: Column) -> bool:
    """Whether a column holds numbers that are not whole, and no classes."""
    found = cells.numbers(column.cells)
    return found is not None and found.odd is None and bool((found.values % 1 > 0).any())


def _is_whole(column: Column) -> bool:
    given = [text for text in cells.labels(column.cells)[0] if text is not None]
    return all(text.lstrip("+-").isdigit() for text in given)


def _is_discrete(column: Column) -> bool:
    given = [text for text in cells.labels(column.cells)[0] if text is not None]
    return not _is_measured(column) and 0 < len(set(given)) <= min(max(2, len(given) // 2), _MOST_CLASSES)
