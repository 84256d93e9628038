"""The addresses of shards that a path, URL or brace pattern stands for: as many as there can be, of known protocols."""

from __future__ import annotations

import os
import re

from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]

from ssl_lens.data.shards.shard_file import public_url
from ssl_lens.errors import InputError

COMPRESSED = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
# Of fsspec's, those that are places; the others unpack, cache, run or log in somewhere else on behalf of an address.
PROTOCOLS = (
    "http",
    "https",
    "s3",
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    "hf",
    "hdfs",
    "webhdfs",
    "memory",
    "file",
)
_MOST_SHARDS = 100_000
_LONGEST, _DEEPEST = 4096, 8  # letters of a pattern; braces in one another
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def expanded(pattern: str) -> list[str]:
    """The shards of a path, URL or brace pattern such as `shards/{000..099}.tar`.

    Raises: InputError if they are too many, none, no tars, not there, or of a protocol that is not known.
    """
    if pattern.startswith("pipe:"):
        raise InputError(f"path={pattern} would run a program; give a path or an address, such as https://...")
    try:
        if len(pattern) > _LONGEST or _count(pattern) > _MOST_SHARDS:
            raise InputError(f"path={pattern[:200]} names more than {_MOST_SHARDS} shards; narrow the pattern")
        urls = list(braceexpand(pattern))
    except UnbalancedBracesError:
        raise InputError(f"path={pattern} has an unmatched brace; write {{000..099}}") from None
    if len(set(urls)) < len(urls):
        raise InputError(f"path={pattern} names a shard twice; narrow the pattern")
    _check_protocols(pattern, urls)
    _check_tars(pattern, urls)
    missing = [url for url in urls if (file := _local(url)) is not None and not os.path.isfile(file)]
    if missing:
        raise InputError(
            f"path={pattern}: {len(missing)} of {len(urls)} shards do not exist, or cannot be looked into, such as "
            f"{missing[0]}; correct the pattern"
        )
    return urls


def _count(pattern: str) -> int:
    """How many a brace pattern names at most, without making them.

    Raises: UnbalancedBracesError if a brace has no other.
    """
    outer: list[tuple[int, int, int]] = []  # of each open brace: what went before it, its alternatives, its start
    here, alternatives, start = 1, 0, 0
    letters = iter(enumerate(pattern))
    for place, letter in letters:
        if letter == "\\":
            next(letters, None)
        elif letter == "{":
            outer.append((here, alternatives, start))
            here, alternatives, start = 1, 0, place + 1
        elif letter == "," and outer:
            here, alternatives = 1, alternatives + here
        elif letter == "}":
            if not outer:
                raise UnbalancedBracesError
            numbers = _RANGE.fullmatch(pattern, start, place)
            inside = alternatives + here if numbers is None else _length(*numbers.groups())
            here, alternatives, start = outer.pop()
            here *= inside
        if here + alternatives > _MOST_SHARDS or len(outer) > _DEEPEST:
            return _MOST_SHARDS + 1
    if outer:
        raise UnbalancedBracesError
    return here


def _length(first: str, last: str, step: str | None) -> int:
    return abs(int(last) - int(first)) // max(abs(int(step or 1)), 1) + 1


def _check_protocols(pattern: str, urls: list[str]) -> None:
    for url in urls:
        protocol, mark, _ = url.partition("://")
        if (mark and protocol not in PROTOCOLS) or "::" in url or "\0" in url:
            raise InputError(
                f"path={pattern}: {public_url(url)} is of no protocol that is read; give a path or one of "
                f"{', '.join(PROTOCOLS)}"
            )


def _check_tars(pattern: str, urls: list[str]) -> None:
    other = next((url for url in urls if not public_url(url).lower().endswith(".tar")), None)
    if other is None:
        return
    packed = public_url(other).lower().endswith(COMPRESSED)
    what = "is compressed; unpack it to a .tar" if packed else "is not a .tar"
    raise InputError(f"path={pattern}: {public_url(other)} {what}; give a folder of images or .tar shards")


def _local(url: str) -> str | None:
    """The path of a shard of this machine."""
    protocol, mark, path = url.partition("://")
    return url if not mark else path if protocol == "file" else None
