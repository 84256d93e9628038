"""The time that a process spends in the folder of a run: alone, and with its end written down."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Literal

from ssl_lens import launcher
from ssl_lens.engine.processes import LostProcessError, lost_processes_reported
from ssl_lens.engine.signals import InterruptedRun
from ssl_lens.files import remove_leftovers
from ssl_lens.runs import checkpoint
from ssl_lens.runs.folder import RunFolder
from ssl_lens.runs.lock import locked
from ssl_lens.runs.status import State, read_status, write_status

logger = logging.getLogger(__name__)

Resume = Literal["never", "auto", "restart"]


@contextlib.contextmanager
def session(folder: RunFolder, resume: Resume) -> Iterator[None]:
    """While entered, the first rank holds the folder's lock; status.json says how it is left, by whichever rank fails.

    Args:
        resume: never, to refuse a folder with a run; auto, to continue it; restart, to put aside what is there.

    Raises: InputError if the folder is in use, holds a run that is not to be continued, or another process is lost.
    """
    first = launcher.rank() == 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_trackers_heard_once())
        if first:
            if resume == "never" or not folder.root.is_dir():
                folder.refuse_existing()  # before a lock is left in a folder of something else
            stack.enter_context(locked(folder.lock))
            if resume == "never":
                folder.refuse_existing()  # again: another start may have come and gone
            if resume == "restart":
                _put_aside(folder)
            remove_leftovers(folder.root)
            _write(folder, "running")
        try:
            with lost_processes_reported():
                yield
        except InterruptedRun as stop:
            if first:
                _write(folder, "stopped", str(stop))
            raise
        except LostProcessError as error:
            if (read_status(folder.status) or {}).get("state") != "failed":  # by the other process, which knows why
                _fail(folder, error)
            raise
        except BaseException as error:
            _fail(folder, error)
            raise
        if first:
            _write(folder, "finished")


@contextlib.contextmanager
def _trackers_heard_once() -> Iterator[None]:
    """TensorBoard writes in a thread; what fails there is raised again where something is logged, and said there."""

    def heard(failed: threading.ExceptHookArgs) -> None:
        if not type(failed.thread).__module__.startswith("tensorboard."):
            before(failed)

    before, threading.excepthook = threading.excepthook, heard
    try:
        yield
    finally:
        threading.excepthook = before


def _put_aside(folder: RunFolder) -> None:
    before = folder.put_aside()
    if before is not None:
        logger.info("what was in %s is now in %s", folder.root, before)


def _fail(folder: RunFolder, error: BaseException) -> None:
    reason = str(error) or type(error).__name__
    with contextlib.suppress(OSError):  # a full disk, perhaps the very reason
        _write(folder, "failed", reason if launcher.rank() == 0 else f"process {launcher.rank()}: {reason}")


def _write(folder: RunFolder, state: State, reason: str = "") -> None:
    step = checkpoint.newest_step(folder.checkpoints)
    if step is None:  # one that was written is missed, not forgotten
        step = (read_status(folder.status) or {}).get("step")
    write_status(folder.status, state, step=step, reason=reason)
