"""One process at a time trains in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ssl_lens.errors import InputError
from ssl_lens.files import check_regular

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """While entered, `file` is locked and says by whom; the system opens the lock of a process however it ends.

    Where the file system has no locks, a warning says so.

    Raises: InputError if another process has it, or there can be no such file; OSError if it cannot be written.
    """
    with _opened(file) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"folder={file.parent} is in use by {_owner(file)}; stop it, or give another folder=NEW"
            ) from None
        except OSError as error:
            logger.warning(
                "%s cannot be locked (%s); see that no other run uses this folder", file.parent, error.strerror
            )
        held.seek(0)
        held.truncate()
        held.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        held.flush()
        yield


def _opened(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(file):
            check_regular(file)
        return file.open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"folder={file.parent} cannot be written ({error.strerror}); make room, or give another folder=NEW"
        ) from error


def is_locked(file: Path) -> bool:
    """Whether a process trains here, as far as the file system can tell."""
    try:
        with file.open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _owner(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")[:200].strip() or "another process"
