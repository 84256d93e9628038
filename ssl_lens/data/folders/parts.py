"""The words by which people say which images are for training and which are held out, in names and in tables."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, NamedTuple, TypeAlias

Part: TypeAlias = Literal["train", "val", "test"]
TRAIN: Part = "train"  # the part of a set that is for training; the others are held out

_WORDS: dict[Part, str] = {
    "train": "train|training|trainval|trn|pretrain|pretraining|unlabell?ed",
    "val": "val|valid|validate|validating|validation|dev|devel|development|eval|evaluate|evaluation",
    "test": "test|tests|testing|tst|holdout|heldout|withheld|unseen|inference",
}
PARTS: tuple[Part, ...] = tuple(_WORDS)
_FILLERS = (
    "x|y|the|my|sets?|data|datasets?|images?|imgs?|samples?|splits?|parts?|files?|cutouts?|stamps?|blind|and|only"
)
_PART = re.compile(
    f"(?:{_FILLERS})?(?:{'|'.join(f'(?P<{part}>{words})' for part, words in _WORDS.items())})(?:{_FILLERS})?"
)
_FILLER = re.compile(rf"(?:{_FILLERS}|\d+)")
# `hold_out` is one word; `testData` and `trainA` are two, `x2` as well.
_TOKEN = re.compile(r"(?i:(?:hold|held)[ _.-]?out)(?![a-z])|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_HINT = re.compile(
    "tra?i?n|val|test|tst|dev|h[oe]ld|unlabel|unseen|infer", re.IGNORECASE
)  # most names have none of these
_SEPARATORS = " _.-"
_FOLD = re.compile(r"(?:(?:k|cv)?[ _-]?folds?|cv|split)[ _-]?\d+", re.IGNORECASE)
_SHORT = re.compile(r"(?:x[ _-]?)?(?:(?P<train>tr)|(?P<val>va)|(?P<test>te|ts))(?:[ _-]?x)?", re.IGNORECASE)
_CONTAINER = re.compile(r"data|(?:data)?sets?|images?|imgs?|samples?|files?|cutouts?|stamps?|pictures?", re.IGNORECASE)


class Marked(NamedTuple):
    """A name that says which part of a set its images are.

    Attributes:
        part: that it names.
        rest: what the name says besides, such as `lenses` of `test_lenses`; empty if nothing.
        leads: whether the name begins with the part.
    """

    part: Part
    rest: str
    leads: bool


def part_in(name: str) -> Marked | None:
    """The part that a folder's name, or a file's without its suffix, speaks of: the first word that names one.

    `test`, `Test Data`, `x_test`, `testset`, `test_0001` and `val2017` say nothing else; `test_lenses`, `lenses_test`
    and `testLenses` are the part and a class; `latest` and `contest` are no parts.
    """
    tokens = list(_TOKEN.finditer(name)) if _HINT.search(name) else []
    for token in tokens:
        word = re.sub(r"[^a-z]", "", token.group().lower())
        found = _PART.fullmatch(word)
        if found is None:
            continue
        part: Part = next(part for part in _WORDS if found.group(part))
        others = [other.group().lower() for other in tokens if other is not token]
        leads = token is tokens[0]
        if all(_FILLER.fullmatch(other) for other in others):
            return Marked(part, "", leads)
        before, after = name[: token.start()], name[token.end() :]
        rest = before.rstrip(_SEPARATORS) + ("_" if before and after else "") + after.lstrip(_SEPARATORS)
        return Marked(part, rest.strip(_SEPARATORS), leads)
    return None


def part_called(word: str) -> Part | None:
    """The part that a word of a table is, such as `Training` or `hold-out`; None if it is none."""
    marked = part_in(word)
    return None if marked is None or marked.rest else marked.part


def short_parts(names: Collection[str]) -> dict[str, Marked]:
    """The names that are parts in two letters, `tr` and `te` or `xtr` and `xte`: only where the one for training is
    among them, and one that is held out.
    """
    found = {name: match for name in names if (match := _SHORT.fullmatch(name))}
    parts = {name: next(part for part in _WORDS if match.group(part)) for name, match in found.items()}
    if TRAIN not in parts.values() or set(parts.values()) == {TRAIN}:
        return {}
    return {name: Marked(part, "", leads=True) for name, part in parts.items()}


def is_container(name: str) -> bool:
    """Whether a folder is called as one that merely holds images, such as `images`."""
    return _CONTAINER.fullmatch(name) is not None


def is_fold(name: str) -> bool:
    """Whether a folder is called as one of several folds, such as `fold_3`."""
    return _FOLD.fullmatch(name) is not None
