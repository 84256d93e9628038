"""What people call the columns of a table: images' files and ids, classes, parts of a set."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, cast

from ssl_lens.data.folders.parts import Part, part_called

Meaning: TypeAlias = Literal["file", "id", "class", "maybe_class", "part", "count"]

_MEANINGS = re.compile(
    r"(?P<file>(?:full|rel|relative)?(?:files?|paths?|file_?names?|file_?paths?)"
    r"|(?:image|img|cutout|stamp|fits)s?(?:files?|filenames?|names?|paths?)?|location)"
    r"|(?P<id>(?:image|img|obj|object|source|src|lens|system|galaxy|target|cutout|stamp|iau|j)?(?:ids?|names?)"
    r"|identifiers?|objects?|source|designation|uu?id|key|stem|basename)"
    r"|(?P<class>(?:true|lens)?(?:label|class|category)(?:e?s|names?|ids?|labels?)?|categories|classification)"
    r"|(?P<maybe_class>targets?|y|(?:ground)?truth|gt|ans|answers?|is(?:a|strong)?lens|lens)"
    r"|(?P<part>part|split)"
    r"|(?P<count>|unnamed\d*|index|indexlevel\d*|row|rowid|rownumber|rownames)"
)
_BEFORE_FLAG = re.compile(r"^(?:[Ii]s|[Ii]n|[Ff]or|[Uu]sed?|[Aa]s)(?:[ _.-]+|(?=[A-Z]))")
_NO_FLAG = re.compile(r"valid(?!ation)|unlabel|dev", re.IGNORECASE)


def squashed(header: str) -> str:
    """A header without what people spell differently: `Image File`, `image_file` and `imageFile` are one."""
    return re.sub(r"[^a-z0-9]", "", header.lower())


def meaning(header: str) -> Meaning | None:
    """What a column of this name holds: files, ids, classes, what may be classes, parts, or a count of the rows."""
    found = _MEANINGS.fullmatch(squashed(header))
    return None if found is None else cast(Meaning, found.lastgroup)


def flag_of_part(header: str) -> Part | None:
    """The part that a column of yes and no is about: `is_test`, `in_training_set`, `holdout`; not `valid`, which is
    said of good images.
    """
    words = _BEFORE_FLAG.sub("", header.strip())
    return None if _NO_FLAG.search(words) else part_called(words)


def is_known(cell: str) -> bool:
    """Whether a cell is what people call a column, and hardly anything else, as `lens` and `test` may be."""
    asks = _BEFORE_FLAG.sub("", cell) != cell and (meaning(cell) == "maybe_class" or flag_of_part(cell) is not None)
    return asks or meaning(cell) in ("file", "id", "class", "part")
