"""Which shards a path, URL or pattern names, and how many images each holds."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ssl_lens.data.formats import tar_file
from ssl_lens.data.formats.reader import MEMBER_SUFFIXES
from ssl_lens.data.formats.sample import UnusableImage
from ssl_lens.data.formats.tar_file import Entry
from ssl_lens.data.pack.packer import cache_folder
from ssl_lens.data.shards.addresses import COMPRESSED, expanded
from ssl_lens.data.shards.shard_file import ShardFile, public_url, read_whole
from ssl_lens.errors import InputError
from ssl_lens.files import MOST_TEXT, whole_file

logger = logging.getLogger(__name__)

SIZES = "sizes.json"  # next to the shards: the convention of webdataset and open_clip


@dataclass(frozen=True)
class Shard:
    """One tar of a set: its path or URL, its name below the folder of all, and how many images it holds."""

    url: str
    name: str
    count: int


def are_shards(path: str) -> bool:
    """Whether a path means shards to be streamed and not a folder: a pattern, a URL or a tar file."""
    if os.path.isdir(path):
        return False
    return "{" in path or "://" in path or path.startswith("pipe:") or path.lower().endswith((".tar", *COMPRESSED))


def list_shards(pattern: str) -> tuple[Shard, ...]:
    """The shards of a path, URL or brace pattern such as `shards/{000..099}.tar`.

    Images per shard come from `sizes.json` next to the shards, `{"000.tar": 1000, ...}`; local shards without are
    counted once and the counts kept in the cache.

    Raises: InputError: missing, empty or compressed shards, or counts that are not known.
    """
    urls = expanded(pattern)
    counts = _counts(urls)
    names = [public_url(url) for url in urls]
    root = os.path.commonprefix([_folder(name) for name in names])
    root = root[: root.rfind("/") + 1]
    shards = tuple(
        Shard(url, name.removeprefix(root), count) for url, name, count in zip(urls, names, counts, strict=True)
    )
    empty = [shard for shard in shards if shard.count == 0]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(shards)} shards hold no image, such as {public_url(empty[0].url)}; remove them"
        )
    return shards


def whole_tar(samples: Iterator[Entry], url: str) -> Iterator[Entry]:
    """The samples of a tar; where it ends with an error, that error is an InputError naming the tar."""
    try:
        yield from samples
    except UnusableImage as error:
        raise InputError(f"{public_url(url)}: {error}; write the shard again") from error
    except InputError:
        raise
    except Exception as error:  # a forged header makes tarfile raise anything
        raise InputError(
            f"{public_url(url)}: tar is damaged ({type(error).__name__}); write the shard again"
        ) from error


def _folder(url: str) -> str:
    return url[: url.partition("?")[0].rfind("/") + 1]


def _base(url: str) -> str:
    return public_url(url).rpartition("/")[2]


def _counts(urls: Sequence[str]) -> list[int]:
    """Images of every shard: from `sizes.json`, else counted."""
    files = {url: _folder(url) + SIZES + url[len(url.partition("?")[0]) :] for url in urls}
    sizes = {file: _sizes(file) for file in dict.fromkeys(files.values())}
    counts = {url: sizes[files[url]][_base(url)] for url in urls if _base(url) in sizes[files[url]]}
    unknown = [url for url in urls if url not in counts]
    remote = [url for url in unknown if "://" in url]
    if remote:
        raise InputError(
            f"the number of images in {len(remote)} of {len(urls)} shards is not known, such as "
            f'{public_url(remote[0])}; put {SIZES} next to the shards, such as {{"{_base(remote[0])}": 1000}}'
        )
    counts.update(_counted(unknown))
    return [counts[url] for url in urls]


def _sizes(file: str) -> dict[str, int]:
    """What a `sizes.json` says; nothing where there is none."""
    try:
        data = read_whole(file, most=MOST_TEXT)
    except FileNotFoundError:
        return {}
    try:
        sizes = json.loads(data)
    except ValueError as error:
        raise InputError(f"{public_url(file)} is not JSON: {error}; write {{'000.tar': 1000, ...}}") from error
    except RecursionError as error:
        raise InputError(f"{public_url(file)} is not JSON: it is too deep; correct it") from error
    wrong = not isinstance(sizes, dict) or any(type(count) is not int or count < 0 for count in sizes.values())
    if wrong:
        raise InputError(f"{public_url(file)} is not an object of shards and their numbers of images; correct it")
    return sizes


def _counted(urls: Sequence[str]) -> dict[str, int]:
    """Counts local shards by their headers, in parallel; counts are kept in the cache by name, size and date."""
    if not urls:
        return {}
    keys = {url: f"{Path(url).resolve()} {(status := Path(url).stat()).st_size} {status.st_mtime_ns}" for url in urls}
    folder = Path(urls[0]).resolve().parent
    kept_in = cache_folder() / f"shards-{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}.json"
    try:
        kept = json.loads(kept_in.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    new = [url for url in urls if keys[url] not in kept]
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as pool:
        counted = pool.map(_count, new)
        kept |= zip(
            (keys[url] for url in new),
            tqdm(counted, desc="counting images", total=len(new), unit="shard", leave=False, disable=None),
            strict=True,
        )
    if new:
        _keep(kept_in, kept)
    return {url: kept[keys[url]] for url in urls}


def _count(url: str) -> int:
    with ShardFile(url) as file:
        return sum(1 for _ in whole_tar(tar_file.entries(file, MEMBER_SUFFIXES, lambda place: False), url))


def _keep(file: Path, counts: dict[str, int]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as temporary:
            temporary.write_text(json.dumps(counts), encoding="utf-8")
    except OSError as error:
        logger.warning("the counts of the shards are not kept: %s; set SSL_LENS_CACHE", error.strerror)
