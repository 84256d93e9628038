"""What strangers may put in the place of a file, and how it has to be refused: in one line, at once."""

import faulthandler
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssl_lens.errors import InputError

SECONDS, WAITS = 5, 6  # of computing, and how many times as long it may take; most take a hundredth
MEMORY = 1 << 30  # bytes that a refusal may take


class TooLateError(BaseException):
    """Not an Exception, which a library might catch."""


def place(path: Path, what: str) -> None:
    """Puts something in the place of a file."""
    path.unlink(missing_ok=True)
    match what:
        case "nothing":
            pass
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "endless device":
            path.symlink_to("/dev/zero")
        case "terminal":
            path.symlink_to("/dev/tty")
        case "kernel's messages":
            path.symlink_to("/proc/kmsg")
        case "link to itself":
            path.symlink_to(path.name)
        case "password file":
            path.symlink_to("/etc/passwd")
        case "terabyte":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "empty":
            path.write_bytes(b"")
        case "bytes":
            path.write_bytes(bytes(range(256)) * 8)
        case "deep":
            path.write_bytes(b"[" * 200_000)
        case "deep objects":
            path.write_bytes(b'{"a":' * 900 + b"1" + b"}" * 900)
        case "list":
            path.write_bytes(b"[1, 2]")
        case "empty object":
            path.write_bytes(b"{}")
        case "long number":
            path.write_bytes(b'{"a": ' + b"9" * 10_000 + b"}")
        case _:
            raise AssertionError(what)


UNREADABLE = ("pipe", "folder", "endless device", "link to itself", "terabyte", "empty", "bytes")
NO_JSON = (
    *UNREADABLE,
    "kernel's messages",
    "password file",
    "deep",
    "deep objects",
    "list",
    "empty object",
    "long number",
)


@contextmanager
def limited() -> Iterator[None]:
    """While entered, the process may take little more memory, and compute or wait no longer than so many seconds."""

    def too_late(number: int, _: object) -> None:
        raise TooLateError(f"{SECONDS} s of computing" if number == signal.SIGPROF else f"{WAITS * SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    before = {number: signal.signal(number, too_late) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITS * SECONDS)
    faulthandler.dump_traceback_later(2 * WAITS * SECONDS, exit=True, file=sys.__stderr__)  # where all waits
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(action: Callable[[], object], named: str) -> str:
    """The line by which something is refused, which has to hold `named`."""
    with limited(), pytest.raises(InputError) as error:
        action()
    line = str(error.value)
    assert line.isprintable(), ascii(line)
    assert named in line
    assert "root:" not in line, "it shows what is in another file"
    assert len(line) < 2200
    return line
