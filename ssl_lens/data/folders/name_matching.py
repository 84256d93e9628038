"""Which image a row of somebody's table is about, however the table spells its name."""

from __future__ import annotations

import bisect
import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.folders.parts import part_in
from ssl_lens.data.folders.tables import Table, rows
from ssl_lens.data.formats.reader import file_of, stem_of
from ssl_lens.errors import InputError

_TOKEN = re.compile(r"\d+|(?<=\d)[+-](?=\d)|J(?=\d)|[A-Za-z]+?(?=J\d)|[^\W\d_]+")
_MOST_TOKENS = 12  # of a name


class Matching(NamedTuple):
    """Images and the rows of a table about them.

    Attributes:
        rows: row of each image [N], int64, -1 where the table has none.
        unmatched: rows that are about no image, by number.
        names: of the table's images that were compared.
        spelled: how the table spells the names, in words; empty if as they are.
    """

    rows: np.ndarray
    unmatched: np.ndarray
    names: Sequence[str]
    spelled: str


class _Path(NamedTuple):
    """A name taken apart: folders, then the file's own name; an archive or a stack is a folder of its images."""

    folders: tuple[str, ...]
    last: str


class _Spelling(NamedTuple):
    """A way to compare names: in words, what is compared of a file's own name, and whether folders' case counts."""

    words: str
    key: Callable[[str], str]
    any_case: bool


def _without_zeros(name: str) -> str:
    whole = re.sub(r"^(\d+)\.0+$", r"\1", stem_of(name).lower())
    return re.sub(r"\d+", lambda digits: digits.group().lstrip("0") or "0", whole)


_SPELLINGS = (
    _Spelling("from another folder", str, False),
    _Spelling("without the suffix", stem_of, False),
    _Spelling("in another case", lambda name: stem_of(name).lower(), True),
    _Spelling("with other zeros", _without_zeros, True),
)


def match(names: Sequence[str], table: Table, root: Path | None) -> Matching:
    """Finds the rows about images.

    A name of the table is that of an image as it is; with folders of another place, as far as both agree; without its
    suffix or with another; in another case; as a number that lost its zeros; or else as a part of the file's name, at
    the same place in all of them, or the other way round. One spelling holds for the whole table: that which finds most
    images, and of two the stricter. An image of a file of many has the row of its file if none is its own.

    Args:
        names: of images, in the set.
        root: folder of the set; None if it is not known.

    Raises: InputError if a name of the table could be several images, or several rows one image.
    """
    best, problem = None, None
    images = _Images(names, root)
    for naming in (table.names, *table.other_names):
        try:
            found = _match(images, naming)
        except InputError as error:
            problem = problem or error
            continue
        if best is None or (found.rows >= 0).sum() > (best.rows >= 0).sum():
            best = found
        if not len(best.unmatched) or best.rows.min(initial=0) >= 0:
            break
    if best is None or (problem is not None and best.rows.max(initial=-1) < 0):
        assert problem is not None
        raise problem
    return best


def look_up(names: Sequence[str], table: Table) -> Table:
    """What `table` says of these images, in their order; a row without a name, that says nothing, where it has none.

    Raises: InputError as `match`.
    """
    return rows(table, match(names, table, None).rows)


def nearest(table: Table, names: Sequence[str]) -> tuple[str, str]:
    """A name of a table, and the image's that is most like it."""
    row, ordered = table.names[0], sorted(names)
    place = bisect.bisect(ordered, row)
    candidates = dict.fromkeys([*ordered[max(place - 200, 0) : place + 200], *names[:500]])
    return row, difflib.get_close_matches(row, candidates, n=1, cutoff=0)[0]


class _Images:
    """The images of a set, and the files that hold several, as what a row may be about."""

    def __init__(self, names: Sequence[str], root: Path | None) -> None:
        files = [file_of(name) for name in names]
        several = sorted({file for name, file in zip(names, files, strict=True) if file != name})
        self.names = [*names, *several]
        self.paths = [_path(name) for name in self.names]
        self.count = len(names)
        self.around = () if root is None else root.resolve().parts
        place = {file: self.count + i for i, file in enumerate(several)}
        self.file = np.array([place.get(file, -1) for file in files], dtype=np.int64)

    def matching(self, row_of: Mapping[int, int], naming: Sequence[str], spelled: str) -> Matching:
        """Of the row of each image or file."""
        own = np.array([row_of.get(i, -1) for i in range(len(self.names))], dtype=np.int64)
        of_file = np.where(self.file >= 0, own[self.file], -1) if len(own) else own
        unmatched = np.ones(len(naming), dtype=bool)
        unmatched[own[own >= 0]] = False
        found = own[: self.count]
        return Matching(np.where(found >= 0, found, of_file), np.flatnonzero(unmatched), naming, spelled)


def _match(images: _Images, naming: Sequence[str]) -> Matching:
    place = {name: row for row, name in enumerate(naming)}
    exact = {i: place[name] for i, name in enumerate(images.names) if name in place}
    best, problem = images.matching(exact, naming, ""), None
    paths = [_path(name) for name in naming] if len(exact) < min(len(naming), images.count) else []
    for spelling in _SPELLINGS if paths else ():
        try:
            found = images.matching(_spelled(images, naming, paths, spelling), naming, spelling.words)
        except InputError as error:
            problem = problem or error
            continue
        if len(found.unmatched) < len(best.unmatched):
            best = found
        if not len(best.unmatched):
            break
    if len(best.unmatched) == len(naming) and problem is not None:
        raise problem
    if len(best.unmatched) == len(naming):
        return images.matching(_within(images, naming, paths), naming, "as a part of the name")
    return best


def _path(name: str) -> _Path:
    file = file_of(name)
    inner = name[len(file) + 1 :]
    file = re.sub(r"^file://", "", file).replace("\\", "/")
    *folders, last = [part for part in f"{file}/{inner}".split("/") if part not in ("", ".", "..")] or [name]
    return _Path(tuple(folders), last)


def _spelled(images: _Images, naming: Sequence[str], paths: Sequence[_Path], spelling: _Spelling) -> dict[int, int]:
    """Row of each image or file, in one spelling."""
    case = str.lower if spelling.any_case else str
    around = tuple(map(case, images.around))
    by_key: dict[str, list[int]] = defaultdict(list)
    by_folder: dict[tuple[str, str], list[int]] = defaultdict(list)
    outermost: dict[str, list[int]] = defaultdict(list)
    folders = []
    for i, path in enumerate(images.paths):
        key, own = spelling.key(path.last), tuple(map(case, path.folders))
        folders.append(own)
        by_key[key].append(i)
        if not own:
            outermost[key].append(i)
        if around or own:
            by_folder[(own or around)[-1], key].append(i)
    row_of: dict[int, int] = {}
    for row, path in enumerate(paths):
        key, given = spelling.key(path.last), tuple(map(case, path.folders))
        near = by_folder.get((given[-1], key)) or outermost.get(key, []) if given else by_key.get(key, [])[:2]
        common = {i: _common(given, around, folders[i]) for i in near}
        agreed = {i: count for i, count in common.items() if count is not None}
        longest = max(agreed.values(), default=0)
        found = [i for i, count in agreed.items() if count == longest]
        if len(found) > 1:
            raise InputError(
                f"{naming[row]} of the table could be {images.names[found[0]]} or {images.names[found[1]]}; "
                "write more of its path"
            )
        for i in found:
            if row_of.setdefault(i, row) != row:
                raise InputError(
                    f"{naming[row_of[i]]} and {naming[row]} of the table are both {images.names[i]}; keep one"
                )
    return row_of


def _common(given: tuple[str, ...], around: tuple[str, ...], own: tuple[str, ...]) -> int | None:
    """How many folders a table's name has in common with an image, from the innermost; None if they disagree."""
    whole = (*around, *own)
    count = 0
    while count < min(len(given), len(whole)) and given[-1 - count] == whole[-1 - count]:
        count += 1
    if count < len(given) and count < len(own):
        return None
    if count < min(len(given), len(whole)):
        parts = [part_in(folders[-1 - count]) for folders in (given, whole)]
        if None not in parts and len({part.part for part in parts if part is not None}) > 1:
            return None  # train/7 of the table is not test/7
    return count


def _within(images: _Images, naming: Sequence[str], paths: Sequence[_Path]) -> dict[int, int]:
    """Row of each image whose name holds the table's name among other words, or the other way round."""
    of_images, of_rows = ([_tokens(path.last) for path in own] for own in (images.paths, paths))
    around = tuple(map(str.lower, images.around))

    def agree(image: int, row: int) -> bool:
        given, own = (tuple(map(str.lower, path.folders)) for path in (paths[row], images.paths[image]))
        return _common(given, around, own) is not None

    pairs = _held(of_images, of_rows, agree)
    if not pairs:
        pairs = [(image, row) for row, image in _held(of_rows, of_images, lambda row, image: agree(image, row))]
    row_of: dict[int, int] = {}
    image_of: dict[int, int] = {}
    for image, row in pairs:
        if image_of.setdefault(row, image) != image:
            raise InputError(
                f"{naming[row]} of the table could be {images.names[image_of[row]]} or {images.names[image]}; "
                "write the whole name"
            )
        if row_of.setdefault(image, row) != row:
            raise InputError(
                f"{naming[row_of[image]]} and {naming[row]} of the table could both be {images.names[image]}; write "
                "the whole names"
            )
    return row_of


def _held(
    outer: Sequence[tuple[str, ...]], inner: Sequence[tuple[str, ...]], agree: Callable[[int, int], bool]
) -> list[tuple[int, int]]:
    """Pairs (outer, inner) of names of which one holds the other, at the place among its words where most do; none if
    it is not most of them, or if there are two such places.
    """
    wanted: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, tokens in enumerate(inner):
        if tokens:
            wanted[tokens].append(i)
    places: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for o, tokens in enumerate(outer):
        for start, stop in combinations(range(min(len(tokens), _MOST_TOKENS) + 1), 2):
            for i in wanted.get(tokens[start:stop], ()):
                if agree(o, i):
                    places[start, len(tokens) - stop].append((o, i))
    most = sorted(places.values(), key=len, reverse=True)[:2]
    if not most or 2 * len(most[0]) < min(len(outer), len(inner)):
        return []
    return [] if len(most) == 2 and len(most[1]) == len(most[0]) else most[0]


def _tokens(name: str) -> tuple[str, ...]:
    """Words and numbers of a name: `J0946+1006` of `SDSSJ0946+1006_i.fits` is among them."""
    return tuple(_TOKEN.findall(_without_zeros(name).replace("j", "J"))) if name else ()
