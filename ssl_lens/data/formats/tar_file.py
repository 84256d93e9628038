"""Tar files by the convention of WebDataset: members side by side with the same key are one sample.

Nothing is ever written to disk, so that no member's name can do harm; members are decoded by the other readers.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol, cast

from ssl_lens.data.formats.sample import Sample, UnusableImage
from ssl_lens.data.quarantine import Unusable

SUFFIXES = (".tar",)

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_MOST_HEADER = 1 << 20  # bytes of names and attributes between two members
_LARGEST_IMAGE = 256 << 20  # bytes of an image member, which is held in memory
_LARGEST_TEXT = 1 << 20
_LOOKED_AT = 10  # members, for the first image
_LONGEST_LABEL = 200  # characters

Decode = Callable[[BinaryIO, str], Iterator[Sample | Unusable]]


class Seekable(Protocol):
    """What is needed of a file: an open one, or one somewhere else."""

    def tell(self) -> int: ...

    def seek(self, offset: int, /) -> int: ...

    def read(self, count: int, /) -> bytes: ...


class Entry(NamedTuple):
    """One sample of a tar, not yet decoded.

    Attributes:
        key: its members' path up to the first dot of the last component.
        file: name of its image member.
        data: bytes of the image member; empty where it was skipped or is at fault.
        texts: bytes of its `.cls` and `.json` members, by suffix.
        fault: why its image cannot be read, or None.
    """

    key: str
    file: str
    data: bytes
    texts: dict[str, bytes]
    fault: str | None


def first_member(path: Path, suffixes: Sequence[str]) -> str:
    """Name of the first member of a tar that has one of the suffixes; "" if there is none, or it cannot be read."""
    with contextlib.suppress(OSError, tarfile.TarError), tarfile.open(path, "r:") as archive:
        names = (member.name for member in islice(archive, _LOOKED_AT))
        return next((name for name in names if name.lower().endswith(tuple(suffixes))), "")
    return ""


def read_tar(file: BinaryIO, size: int, *, suffixes: Sequence[str], decode: Decode) -> Iterator[Sample | Unusable]:
    """Reads the samples of a tar file; a damaged image does not end it, a damaged tar does.

    A member `.cls` (text) is the label; `.json` is an object whose `label` is the label, where there is no `.cls`, and
    whose other finite numbers are targets.

    Args:
        suffixes: of image members.
        decode: reads the images of one member, given its bytes and name.
    """
    found, keys = False, set()
    for entry in entries(file, suffixes):
        found = True
        if entry.key in keys:
            yield Unusable(entry.key, "there is a sample of this name already; needed are members side by side")
            continue
        keys.add(entry.key)
        try:
            label, targets = _label_and_targets(entry.texts)
            sample = image_of(entry, decode)
            yield sample._replace(name=entry.key, label=label, targets={**sample.targets, **targets})
        except UnusableImage as error:
            yield Unusable(entry.key, str(error))
    if not found:
        raise UnusableImage(f"no images in the tar; needed are members with {' '.join(suffixes)}")


def image_of(entry: Entry, decode: Decode) -> Sample:
    """Decodes the image member of an entry.

    Raises: UnusableImage if it is at fault, damaged, or holds several images.
    """
    if entry.fault is not None:
        raise UnusableImage(entry.fault)
    samples = list(islice(decode(io.BytesIO(entry.data), entry.file), 2))
    if len(samples) != 1:
        raise UnusableImage(f"{entry.file} holds {'several' if samples else 'no'} images; needed is one per member")
    sample = samples[0]
    assert isinstance(sample, Sample), "members are not tars themselves"
    if sample.name is not None:
        raise UnusableImage(f"{entry.file} holds the image {sample.name}, a part of a set; give such files in a folder")
    return sample


def entries(
    file: Seekable, suffixes: Sequence[str], wanted: Callable[[int], bool] = lambda place: True
) -> Iterator[Entry]:
    """The samples of a tar in order, read from front to back; those without an image member do not count.

    Args:
        file: at its start, can seek forward.
        wanted: whether the bytes of the sample at a place, counted from 0, are read.
    Raises:
        UnusableImage: not a tar, compressed, truncated, or a member whose name would climb out of a folder.
    """
    place, group = 0, None
    for member in _members(file):
        folder, _, last = member.name.removeprefix("./").rpartition("/")
        if last.startswith("."):  # notes of macOS next to the files
            continue
        stem = last.partition(".")[0]
        key = f"{folder}/{stem}" if folder else stem
        if group is None or group.key != key:
            if group is not None and group.file:
                yield group
                place += 1
            group = Entry(key, "", b"", {}, None)
        group = _with_member(group, member, file, suffixes, read=wanted(place))
    if group is not None and group.file:
        yield group


def _with_member(
    group: Entry, member: tarfile.TarInfo, file: Seekable, suffixes: Sequence[str], *, read: bool
) -> Entry:
    name = member.name.lower()
    text = next((suffix for suffix in (".cls", ".json") if name.endswith(suffix)), None)
    if text and member.isreg() and not member.issparse():
        if member.size > _LARGEST_TEXT:
            return group._replace(fault=f"{member.name} has {member.size} bytes; at most {_LARGEST_TEXT} are read")
        return group._replace(texts={**group.texts, text: _data(file, member)}) if read else group
    if not name.endswith(tuple(suffixes)) or member.isdir():
        return group
    if group.file:
        fault = f"two images, {group.file} and {member.name}; needed is one (names up to the first dot are one sample)"
        return group._replace(data=b"", fault=fault)
    group = group._replace(file=member.name)
    if not member.isreg() or member.issparse():
        return group._replace(fault=f"{member.name} is a link, a device or sparse; store the image itself")
    if member.size > _LARGEST_IMAGE:
        return group._replace(fault=f"{member.name} has {member.size} bytes; at most {_LARGEST_IMAGE} are read")
    return group._replace(data=_data(file, member)) if read else group


def _members(file: Seekable) -> Iterator[tarfile.TarInfo]:
    """Headers of all members in order; ends with an error unless the end that a tar writes is there."""
    headers = _Headers(file)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, headers), mode="r:", encoding="utf-8", errors="replace") as tar:
            member = tar.next()
            while member is not None:
                _check(member, tar.offset)
                yield member
                tar.members.clear()  # type: ignore[attr-defined]  # else they pile up
                headers.seek(tar.offset)
                member = tar.tarinfo.fromtarfile(tar)  # `next` would take damage for the end
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in its stub
        return
    except tarfile.TarError as error:
        if headers.first.startswith(_COMPRESSED):
            raise UnusableImage("the tar is compressed, so that only all of it could be read; unpack it") from error
        raise UnusableImage(f"tar is truncated or damaged at byte {headers.tell()} ({error})") from error


def _check(member: tarfile.TarInfo, following: int) -> None:
    if member.size < 0 or following <= member.offset:
        raise UnusableImage(f"tar is damaged: {member.name!r} declares {member.size} bytes")
    if member.name.startswith("/") or ".." in member.name.split("/") or not member.name.isprintable():
        raise UnusableImage(f"tar holds a member {member.name!r:.300}; names must be relative and without '..'")


def _data(file: Seekable, member: tarfile.TarInfo) -> bytes:
    file.seek(member.offset_data)
    data = file.read(member.size)
    if len(data) < member.size:
        raise UnusableImage(f"tar is truncated: {member.name} has {len(data)} of {member.size} bytes")
    return data


class _Headers:
    """What `tarfile` sees of a file: enough for the next header, so that a forged one cannot make it read for ever."""

    def __init__(self, file: Seekable) -> None:
        self._file, self._left = file, _MOST_HEADER
        self.first = b""  # what was read first
        self.tell = file.tell

    def seek(self, place: int) -> None:
        self._left = _MOST_HEADER
        self._file.seek(place)

    def read(self, count: int) -> bytes:
        self._left -= count
        if count < 0 or self._left < 0:
            raise UnusableImage(f"tar has a header of more than {_MOST_HEADER} bytes: damaged")
        data = self._file.read(count)
        self.first = self.first or data
        return data


def _label_and_targets(texts: dict[str, bytes]) -> tuple[str | None, dict[str, float]]:
    label, values = None, {}
    if ".json" in texts:
        try:
            values = json.loads(texts[".json"])
        except (ValueError, RecursionError) as error:
            raise UnusableImage(f".json cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise UnusableImage(f".json holds a {type(values).__name__}; needed is an object such as {{'label': 1}}")
        label = values.pop("label", None)
        if label is not None and (isinstance(label, bool) or not isinstance(label, (str, int))):
            raise UnusableImage(f".json has label {label!r:.50}; needed is a text or an integer")
    if ".cls" in texts:
        label = texts[".cls"].decode("utf-8", errors="replace").strip()
    if label is not None:
        label = str(label)
        if not label or not label.isprintable() or len(label) > _LONGEST_LABEL:
            raise UnusableImage(f"label {label!r:.50} is not 1 to {_LONGEST_LABEL} printable characters")
    numbers = {name: float(value) for name, value in values.items() if _is_number(value)}
    unnamed = next((name for name in numbers if not name.isprintable()), None)
    if unnamed is not None:
        raise UnusableImage(f".json has a number called {ascii(unnamed):.50}; needed are printable characters")
    return label, numbers


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
