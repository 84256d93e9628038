"""What the folders of a set say of its images: their class, and whether they are for training or for tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

from ssl_lens.errors import InputError

LayoutName: TypeAlias = Literal[
    "auto",
    "folders",
    "model_i",
    "model_ii",
    "model_iii",
    "model_iv",
    "common_test",
    "lens_finding",
    "real_hst",
    "gri",
]
Sizes: TypeAlias = Literal["refuse", "crop", "pad"]  # what becomes of images of unequal size
TRAIN = "train"  # the part of a set that is for training; others are held out

_PART = "(?P<part>(?i:train|training|val|valid|validation|test))"
_CLASSES = r"(?P<label>[^/]+)/.+"  # CLASS/...
_PARTS = rf"{_PART}/(?P<label>[^/]+)/.+"  # train/CLASS/..., val/CLASS/...
_PARTS_MIXED = rf"{_PART}/(?:(?P<label>[^/]+)/.+|[^/]+)"  # the same, and train/FILE: no class is known
_PREFIXES = rf"{_PART}_(?P<label>[^/]+)/.+"  # train_CLASS/..., test_CLASS/...
_SETS = (
    r"(?:[^/]*?(?:_(?P<part>test))?/)?(?P<label>axion|cdm|no_sub)/[^/]+"  # Model_I/CLASS/..., Model_I_test/CLASS/...
)
_FLAT = r"(?:(?P<label>[^/]+)/)?[^/]+"


class Layout(NamedTuple):
    """How a set is laid out, and what its images are.

    Attributes:
        pattern: of an image's name, with the groups `label` and `part`.
        shown: the same for people.
        shape: of all images [C, H, W]; None where it varies.
        sizes: what becomes of images of unequal size, unless the user says so.
    """

    pattern: str
    shown: str
    shape: tuple[int, int, int] | None = None
    sizes: Sizes = "refuse"


_DEEPLENSE: dict[LayoutName, Layout] = {
    "model_i": Layout(_SETS, "[Model_I[_test]/]{axion,cdm,no_sub}/FILE", (1, 150, 150)),
    "model_ii": Layout(_SETS, "[Model_II[_test]/]{axion,cdm,no_sub}/FILE", (1, 64, 64)),
    "model_iii": Layout(_SETS, "[Model_III[_test]/]{axion,cdm,no_sub}/FILE", (1, 64, 64)),
    "model_iv": Layout(_PARTS, "{train,val}/{axion,cdm,no_sub}/FILE", (3, 64, 64)),
    "common_test": Layout(_PARTS, "{train,val}/{no,sphere,vort}/FILE", (1, 150, 150)),
    "lens_finding": Layout(_PREFIXES, "{train,test}_{lenses,nonlenses}/FILE", (3, 64, 64)),
    "real_hst": Layout(_FLAT, "[lenses/]FILE", (1, 334, 334)),
    "gri": Layout(_FLAT, "[CLASS/]FILE", None, "crop"),
}


def named_layout(name: LayoutName) -> Layout | None:
    """The layout of a DeepLense set; None for `auto` and `folders`, which make no demands.

    Raises: InputError for a name that there is not.
    """
    if name not in get_args(LayoutName):
        raise InputError(f"layout={name} is unknown; set it to one of {', '.join(get_args(LayoutName))}")
    return _DEEPLENSE.get(name)


def labels_and_parts(names: Sequence[str], layout: LayoutName) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    """Class and part of each image, by its name; all None where the folders say nothing.

    `folders` takes the first-level folders as classes, if every image lies in one. `auto` first looks for the folders
    train, val, test around the classes or the files, for these as the classes' prefixes, and for sets next to their
    tests (`Model_I/`, `Model_I_test/`).

    Raises: InputError for an image that is not where the named layout has them.
    """
    known = named_layout(layout)
    if known is not None:
        found = _matches(known.pattern, names)
        if found is None:
            other = next(name for name in names if re.fullmatch(known.pattern, name) is None)
            raise InputError(
                f"layout={layout}: {other} is not laid out as {known.shown}; give the folder around "
                "these, or layout=auto"
            )
        return _groups(found, "label"), _parts(found)
    candidates = (_CLASSES,) if layout == "folders" else (_PARTS_MIXED, _PREFIXES, _SETS, _CLASSES)
    for pattern in candidates:
        found = _matches(pattern, names)
        if found is not None and (pattern != _SETS or any(_groups(found, "part"))):
            return _groups(found, "label"), _parts(found)
    return (None,) * len(names), (None,) * len(names)


def _matches(pattern: str, names: Sequence[str]) -> list[re.Match[str]] | None:
    """Those of all names; None if one does not match."""
    found = [match for name in names if (match := re.fullmatch(pattern, name)) is not None]
    return found if len(found) == len(names) else None


def _groups(found: Sequence[re.Match[str]], group: str) -> tuple[str | None, ...]:
    return tuple(match.groupdict().get(group) for match in found)


def _parts(found: Sequence[re.Match[str]]) -> tuple[str | None, ...]:
    """The parts; where one is named, what has none is for training."""
    parts = _groups(found, "part")
    return tuple(part or TRAIN for part in parts) if any(parts) else parts
