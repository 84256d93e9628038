"""Images that cannot be used: what they are called, where they are listed, and how many a set may have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ssl_lens.errors import InputError
from ssl_lens.files import whole_file

MOST_UNUSABLE = 0.01  # of the images seen
JUDGED_FROM = 1000  # images of a stream, whose end is not waited for


class Unusable(NamedTuple):
    """An image that is left out, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def judge_unusable(unusable: Sequence[Unusable], seen: int, place: str, file: Path | None = None) -> str:
    """One line about images that are left out.

    Args:
        unusable: at least one.
        seen: number of images, these included.
        place: where they are, such as "in DIR".
        file: where they are listed.

    Raises: InputError if they are more than 1 % of the images seen.
    """
    listed = "" if file is None else f"; all are listed in {file}"
    found = f"{len(unusable)} of {seen} images {place} are unusable, such as {unusable[0]}{listed}"
    if len(unusable) > MOST_UNUSABLE * seen:
        raise InputError(f"{found}; repair or remove them, since at most {MOST_UNUSABLE:.0%} are left out")
    return f"{found}; they are left out"


def judge_stream(unusable: Sequence[Unusable], seen: int) -> None:
    """Raises InputError as `judge_unusable` once enough images of a stream were seen."""
    if unusable and seen >= JUDGED_FROM:
        judge_unusable(unusable, seen, "read from the shards")


def write_quarantine(file: Path, unusable: Sequence[Unusable]) -> None:
    """Lists images in a tab-separated file (name, reason), in the place of what it held.

    Raises: InputError if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary:
            temporary.write_text("".join(map(_line, unusable)), encoding="utf-8")
    except OSError as error:
        raise _not_listed(len(unusable), file, error) from error


def add_to_quarantine(file: Path, unusable: Unusable) -> None:
    """Appends an image to the file; several processes may do so at once.

    Raises: InputError if it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as lines:
            lines.write(_line(unusable))
    except OSError as error:
        raise _not_listed(1, file, error) from error


def read_quarantine(file: Path) -> tuple[Unusable, ...]:
    """The images listed in a file; none if there is no file."""
    if not file.is_file():
        return ()
    pairs = (line.partition("\t") for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(Unusable(name, reason) for name, _, reason in pairs)


def _line(unusable: Unusable) -> str:
    return f"{unusable.name}\t{unusable.reason}\n"


def _not_listed(count: int, file: Path, error: OSError) -> InputError:
    return InputError(f"cannot list {count} unusable images in {file}: {error.strerror}; choose a folder with room")
