"""A file somewhere, read from front to back, that outlives a connection which breaks off."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import aiohttp
import fsspec

from ssl_lens.errors import InputError
from ssl_lens.files import check_regular

_BLOCK = 4 << 20  # bytes asked for at once
_WAIT_S = 1.0  # before the second attempt
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)  # s; a slow file is not a dead one
_HTTP = {"client_kwargs": {"timeout": _TIMEOUT}, "headers": {"Accept-Encoding": "identity"}}


class ShardFile:
    """An open file of a path or URL, binary; a read that fails is tried once more from where it was.

    Opened through fsspec, since WebDataset's own opener would hand `pipe:` addresses to a shell.

    Raises: InputError naming the address, from `read`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._place = 0  # of the next read
        self._file: BinaryIO | None = None
        self._block = _BLOCK

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        """Moves; forward is cheap."""
        self._place = place
        return place

    def read(self, count: int) -> bytes:
        """Reads `count` bytes, fewer only at the end of the file."""
        try:
            data = self._read(count)
        except InputError:
            raise
        except Exception:  # each protocol has its own
            data = b""
        if len(data) < count:  # broken off, or the end
            self._close()
            try:
                data = self._again(count)
            except Exception as error:
                raise InputError(
                    f"{public_url(self.url)} cannot be read, tried twice: {_reason(error, self.url)}; check the "
                    "address and the network"
                ) from error
        self._place += len(data)
        return data

    def _again(self, count: int) -> bytes:
        if "://" in self.url:
            time.sleep(_WAIT_S)
        try:
            return self._read(count)
        except ValueError:  # how fsspec says that a server cannot give parts of a file: then from its front
            self._close()
            self._block = 0
            return self._read(count)

    def _read(self, count: int) -> bytes:
        if self._file is None:
            system, path = filesystem(self.url)
            options = {"block_size": self._block, "cache_type": "readahead"} if "://" in self.url else {}
            self._file = system.open(path, "rb", **options)
        self._go_to_place(self._file)
        return _exactly(self._file, count)

    def _go_to_place(self, file: BinaryIO) -> None:
        if self._block:
            file.seek(self._place)
            return
        ahead = self._place - file.tell()
        assert ahead >= 0, "what is not given in parts is read from its front"
        while ahead > 0 and (skipped := len(file.read(min(ahead, _BLOCK)))):
            ahead -= skipped

    def _close(self) -> None:
        if self._file is not None:
            with suppress(Exception):  # a broken connection may not close either
                self._file.close()
        self._file = None


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or URL, and its path there.

    Raises: InputError for a protocol that is unknown or whose package is not installed.
    """
    try:
        return fsspec.core.url_to_fs(url, **_options(url))
    except Exception as error:  # each protocol has its own
        raise InputError(f"{public_url(url)} cannot be opened: {_reason(error, url)}; check the address") from error


def read_whole(url: str, *, most: int) -> bytes:
    """The bytes of a small file of a path or URL.

    Raises: FileNotFoundError if there is none; InputError if it cannot be read, or has more bytes.
    """
    if "://" not in url:
        if not os.path.lexists(url):
            raise FileNotFoundError(url)
        check_regular(Path(url))
    system, path = filesystem(url)
    try:
        with system.open(path, "rb", **({"block_size": 0} if url.startswith("http") else {})) as file:  # from its front
            data = _exactly(file, most + 1)
    except FileNotFoundError:
        raise
    except Exception as error:  # each protocol has its own
        raise InputError(f"{public_url(url)} cannot be read: {type(error).__name__}; check the address") from error
    if len(data) > most:
        raise InputError(f"{public_url(url)} has more than {most} bytes, which nothing of its kind has; correct it")
    return data


def public_url(url: str) -> str:
    """A path or URL without what may be secret: its query and password."""
    if "://" not in url:
        return url
    protocol = url.partition("://")[0]
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets where none can be
        return f"{protocol}://..."
    return f"{protocol}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _reason(error: Exception, url: str) -> str:
    """What went wrong, without the address, which may hold what is secret."""
    return " ".join(f"{type(error).__name__} {error}".replace(url, "")[:300].split())


def _options(url: str) -> dict[str, object]:
    protocol = url.partition("://")[0]
    return {protocol: dict(_HTTP)} if protocol in ("http", "https") else {}


def _exactly(file: BinaryIO, count: int) -> bytes:
    parts = []
    while count and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
