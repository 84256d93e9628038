"""Files and folders that are whole or absent, whatever stops the process that writes them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = ".making-"  # hidden, so that no search for images finds it
_IN_USE = "in_use"
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
    _remove_abandoned(path.parent)
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


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / _IN_USE).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error while its process lives
            shutil.rmtree(folder, ignore_errors=True)
