"""What the folders of a set say of its images: their class, and whether they are for training or for tests."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from typing import Literal, NamedTuple, TypeAlias, get_args

from ssl_lens.data.folders.parts import TRAIN, Marked, Part, is_container, is_fold, part_called, part_in, short_parts
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

_PART = "(?P<part>(?i:train|training|val|valid|validation|test))"
_PARTS = rf"{_PART}/(?P<label>[^/]+)/.+"  # train/CLASS/..., val/CLASS/...
_PREFIXES = rf"{_PART}_(?P<label>[^/]+)/.+"  # train_CLASS/..., test_CLASS/...
_SETS = (
    r"(?:[^/]*?(?:_(?P<part>test))?/)?(?P<label>axion|cdm|no_sub)/[^/]+"  # Model_I/CLASS/..., Model_I_test/CLASS/...
)
_VALID = re.compile(r"(?<![a-z])valid(?![a-z])", re.IGNORECASE)
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
    """Class and part of each image, by its name; all None where the names say nothing.

    `folders` takes the first-level folders as classes, if every image lies in one, and knows no parts. `auto` does so
    where no name of a folder, a file or an archive's member speaks of a part (`parts.part_in`). Where one does, an
    image is held out if any of its names says so, else it is for training. The class is then the folder inside the
    part, else the one around it, else what the folder's name says besides: `test/lens/FILE`, `lens/test/FILE`,
    `test_lens/FILE`; for a folder `Model_I_test` next to `Model_I`, the folder inside both. What a name says besides is
    no class where one name is all that there is of each part, with the classes inside: `train_v2/lens/FILE`.

    Args:
        names: files relative to the set's folder, with `/`; of images in a file of many, `file.tar#KEY`.

    Raises: InputError for an image that is not where the named layout has them, or folders of folds.
    """
    from ssl_lens.data.formats.reader import file_of  # all formats, when `--help` wants the names of layouts alone

    known = named_layout(layout)
    if known is not None:
        found = [re.fullmatch(known.pattern, file_of(name)) for name in names]
        if None in found:
            raise InputError(
                f"layout={layout}: {names[found.index(None)]} is not laid out as {known.shown}; give the folder around "
                "these, or layout=auto"
            )
        if "(?P<part>" in known.pattern:
            groups = [match.groupdict() for match in found if match is not None]
            parts = tuple(group["part"] for group in groups)
            labels = tuple(group["label"] for group in groups)
            return labels, tuple(_common(part) for part in parts) if any(parts) else parts
    places = [_place(name) for name in names]
    if layout != "folders":
        _check_folds(places)
        places, marks = _without_containers(places, _marks(places))
        if any(marks):
            marks = _named_alone(places, marks)
            sets = {mark.rest for mark in marks if mark is not None and mark.rest and not mark.leads}
            labels = tuple(_label(place, mark, sets) for place, mark in zip(places, marks, strict=True))
            return labels, tuple(TRAIN if mark is None else mark.part for mark in marks)
    nothing = (None,) * len(names)
    around = [file_of(name).split("/")[:-1] for name in names]  # the folders within an archive are anything
    return tuple(folders[0] for folders in around) if around and all(around) else nothing, nothing


class _Place(NamedTuple):
    """Where an image lies.

    Attributes:
        folders: around it, those within an archive included.
        files: names without suffixes: of the file, and of the member of an archive.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]


class _Mark(NamedTuple):
    """A part, and where it stands: the place in the folders, None if it is a file's name that says so."""

    part: Part
    rest: str
    leads: bool
    folder: int | None


def _place(name: str) -> _Place:
    from ssl_lens.data.formats.reader import file_of, stem_of

    file = file_of(name)
    *folders, stem = stem_of(file).split("/")
    *inner, key = name[len(file) + 1 :].split("/")
    return _Place((*folders, *inner), (stem, key))


def _marks(places: Sequence[_Place]) -> list[_Mark | None]:
    """The part of each image, and the outermost name that speaks of one."""
    words = {word for place in places for word in (*place.folders, *place.files)}
    with_valid = any("invalid" in word.lower() for word in words)  # then `valid` is its opposite, and no part
    marked = {word: None if with_valid and _VALID.search(word) else part_in(word) for word in words}
    marked |= short_parts(words)
    found: list[_Mark | None] = []
    for place in places:
        named: list[tuple[Marked | None, int | None]] = [(marked[word], i) for i, word in enumerate(place.folders)]
        named += [(marked[word], None) for word in place.files]
        marks = [_Mark(*mark, i) for mark, i in named if mark is not None]
        held_out = next((mark.part for mark in marks if mark.part != TRAIN), TRAIN)
        found.append(marks[0]._replace(part=held_out) if marks else None)
    return found


def _without_containers(
    places: Sequence[_Place], marks: Sequence[_Mark | None]
) -> tuple[list[_Place], list[_Mark | None]]:
    """The same without a folder such as `images` that all parts have inside, or around them."""
    kept, moved = list(places), list(marks)
    for beside in (1, -1):
        names = {_folder_at(place, mark, beside) for place, mark in zip(kept, moved, strict=True)}
        if len(names) != 1 or not is_container(names.pop() or ""):
            continue
        for n, (place, mark) in enumerate(zip(kept, moved, strict=True)):
            assert mark is not None
            assert mark.folder is not None
            i = mark.folder + beside
            kept[n] = place._replace(folders=(*place.folders[:i], *place.folders[i + 1 :]))
            moved[n] = mark._replace(folder=mark.folder + min(beside, 0))
    return kept, moved


def _folder_at(place: _Place, mark: _Mark | None, beside: int) -> str | None:
    """The folder inside (1) or around (-1) the one that is called as a part."""
    if mark is None or mark.folder is None or not 0 <= mark.folder + beside < len(place.folders):
        return None
    return place.folders[mark.folder + beside]


def _named_alone(places: Sequence[_Place], marks: Sequence[_Mark | None]) -> list[_Mark | None]:
    """The same, with nothing said besides the part where the classes are the folders inside: `train_v2/lens`."""
    besides: dict[Part, set[str]] = {}
    inside: dict[Part, set[str]] = {}
    for place, mark in zip(places, marks, strict=True):
        label = _folder_at(place, mark, 1)
        if mark is None or label is None:
            return list(marks)
        besides.setdefault(mark.part, set()).add(mark.rest if mark.leads else "")
        inside.setdefault(mark.part, set()).add(label)
    one_each = all(len(rests) == 1 for rests in besides.values()) or any("" in rests for rests in besides.values())
    if len(inside) < 2 or not one_each or not set.intersection(*inside.values()):
        return list(marks)
    return [mark._replace(rest="") if mark is not None and mark.leads else mark for mark in marks]


def _label(place: _Place, mark: _Mark | None, sets: Set[str]) -> str | None:
    folders = place.folders
    if mark is None or mark.folder is None:
        around = next((i for i, folder in enumerate(folders) if folder in sets), None)
        if around is not None and around + 1 < len(folders):
            return folders[around + 1]
        return folders[0] if folders else None
    inside = folders[mark.folder + 1] if mark.folder + 1 < len(folders) else None
    if mark.rest:
        return mark.rest if mark.leads else inside or mark.rest
    return inside or (folders[mark.folder - 1] if mark.folder else None)


def _check_folds(places: Sequence[_Place]) -> None:
    folds = sorted({folder for place in places for folder in place.folders if is_fold(folder)})
    if len(folds) > 1:
        raise InputError(
            f"the folders {', '.join(folds[:3])}{', ...' if len(folds) > 3 else ''} are folds, which do not say which "
            "images are for tests; call those to hold out test and the others train, or give layout=folders, which "
            "takes folders for classes"
        )


def _common(part: str | None) -> str:
    return TRAIN if part is None else part_called(part) or part
