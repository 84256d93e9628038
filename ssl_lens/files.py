"""Files and folders: written whole or not at all, whatever stops the process; read only if they are what they seem."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_lens.errors import InputError

MOST_TEXT = 4 << 20  # bytes of a configuration
MOST_LISTING = 256 << 20  # bytes of what has a line for each of millions of images

_PREFIX = ".making-"  # hidden, so that no search for images finds it
_IN_USE = "in_use"
_SECONDS_TO_LOCK = 60  # a folder without its lock is older only if its process was killed
_LEFTOVER = re.compile(r"\..+\.\d+")  # of `whole_file`: name and process


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file to write in the place of `path`, which it becomes at the end, readable as the umask says.

    Raises: OSError if it cannot.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask says; asking for the umask itself would set it for all threads
        yield temporary
        temporary.chmod(mode)  # a library may have put a file of its own there, which only its owner can read
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the hidden files that killed processes left of `whole_file`; for who alone writes in a folder."""
    for path in folder.glob(".*"):
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder next to `path` to fill, which becomes `path` at the end, its files readable as the umask says.

    What killed processes left next to `path` is removed first. A folder in use is locked, and the system opens the lock
    of a process however it ends; where the file system has no locks, leftovers stay.

    Raises: OSError if it cannot, or there is a folder with files by now, which is left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PREFIX) as temporary, _locked(Path(temporary)) as mode:
        made = Path(temporary, "made")
        made.mkdir()
        yield made
        for file in made.rglob("*"):
            if file.is_file():
                file.chmod(mode)
        made.rename(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """While entered, the folder is in use; gives the mode of a new file."""
    with (folder / "lock").open("w") as lock:
        mode = os.fstat(lock.fileno()).st_mode
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "lock").rename(folder / _IN_USE)  # the name that others look for is never there without its lock
        yield mode


def remove_folder(path: Path) -> None:
    """Removes a folder: from the first moment on there is none of its name, whatever stops the process."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PREFIX) as temporary, _locked(Path(temporary)):
        path.rename(Path(temporary, "removed"))


def remove_abandoned(parent: Path) -> None:
    """Removes the hidden folders that killed processes left of `whole_folder` and `remove_folder`."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if not (folder / _IN_USE).exists() and folder.stat().st_mtime < time.time() - _SECONDS_TO_LOCK:
                folder.rmdir()  # killed before its last act
            with (folder / _IN_USE).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error while its process lives
                for path in folder.iterdir():
                    if path.name != _IN_USE:  # the last to go, or who is killed here would leave the rest for ever
                        shutil.rmtree(path, ignore_errors=True)
                shutil.rmtree(folder, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Looks, before hours are spent, whether a folder is there to write into or could be made; makes nothing.

    Raises: InputError if not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        raise InputError(f"{folder} cannot be written: {there} is not a folder; give another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be written: there is no right to write in {there}; give another place")


def check_regular(path: Path) -> int:
    """Looks at a file before a library opens it; returns its size in bytes.

    Raises: InputError if it is not there, or none to be read from front to back: a pipe, a device, a folder.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise InputError(f"{path} cannot be read ({_reason(error)}); give another") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; give another")
    return status.st_size


def read_text(path: Path, *, most: int = MOST_TEXT) -> str:
    """The text of a regular file in UTF-8 of at most so many bytes.

    Raises: InputError for anything else, without waiting for it or reading on.
    """
    size = check_regular(path)
    if size > most:
        raise InputError(f"{path} has more than {most} bytes, which nothing of its kind has; give another")
    try:
        with open(path, "rb", opener=without_waiting) as file:
            data = file.read(size + 1) or b""  # None: one of the system's own that has nothing to give yet
        if len(data) != size:
            raise InputError(f"{path} has another size than its folder says; give another")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({_reason(error)}); give another") from None


def read_json(path: Path, *, most: int = MOST_TEXT) -> dict[str, Any]:
    """The JSON object in a file.

    Raises: InputError as `read_text`, or if it is something else.
    """
    try:
        content = json.loads(read_text(path, most=most))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({_reason(error)}); write it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object; write it again")
    return content


def without_waiting(path: str, flags: int) -> int:
    """The `opener` of a file that is not to be waited for: a pipe, or one of the system's own with nothing to give."""
    return os.open(path, flags | os.O_NONBLOCK)


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
