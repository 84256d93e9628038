"""How bad input is reported to the user: one line, exit status 2; and which names that line uses."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping

from ssl_lens import launcher

_LONGEST_MESSAGE = 2000  # characters
_OF_THE_SYSTEM = (  # no room, right or place to write or read: nothing that a traceback would explain
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG,
    errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP,
)  # fmt: skip


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line: given, needed, what to change.

    What a message quotes may come from a stranger's file: line ends become spaces, what cannot be printed (such as the
    commands of a terminal) is escaped, and of a message without end only both ends stay.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[: _LONGEST_MESSAGE // 2]} ... {message[-_LONGEST_MESSAGE // 2 :]}"
    line = " ".join(part.strip() for part in message.splitlines())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in line)


@contextlib.contextmanager
def arguments_named(names: Mapping[str, str]) -> Iterator[None]:
    """While entered, an `InputError` that names arguments leaves with the names that the user gave them by.

    A room speaks of its own arguments, `batch_size=512`; who calls it for a user knows what the user wrote:
    `arguments_named({"batch_size": "optim.batch_size"})`, or `{"batch_size": "--batch-size"}`. The error stays the same
    object of the same class. Nested, the inner names win, since what is translated once is left alone.
    """
    try:
        yield
    except InputError as error:
        error.args = (renamed(str(error), names),)
        raise


def renamed(message: str, names: Mapping[str, str]) -> str:
    """A message with its arguments called by other names: `size=3` becomes `--size=3`.

    An argument is a whole word before `=`; one whose name has an underscore, which English has not, is any whole word.
    Parts of longer names, of dotted keys, of flags and of paths are none.
    """
    word = "|".join(re.escape(name) + ("" if "_" in name else "(?==)") for name in names)
    whole = rf"(?<![\w./-])(?:{word})(?!\w|[./-]\w)"
    return re.sub(whole, lambda found: names[found.group()], message) if names else message


def one_line_errors(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wraps an entry point: an `InputError` becomes one line on stderr and exit status 2, as does a full disk.

    Of the processes of a launcher one says what several have to say. `SSL_LENS_DEBUG=1` shows the traceback as well.
    """

    @functools.wraps(main)
    def wrapped(*arguments: object) -> int:
        try:
            status = main(*arguments) or 0
            sys.stdout.flush()
            return status
        except BrokenPipeError:  # whoever reads has enough, as `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        except InputError as error:
            if os.environ.get("SSL_LENS_DEBUG") == "1":
                traceback.print_exc()
            _print_once(f"error: {error}")
            return 2
        except OSError as error:
            if error.errno not in _OF_THE_SYSTEM or os.environ.get("SSL_LENS_DEBUG") == "1":
                raise
            _print_once(f"error: {error.filename or 'a file'}: {error.strerror}; make room or give another place")
            return 2

    return wrapped


def _print_once(line: str) -> None:
    if launcher.speaks_first(line):
        print(line if launcher.rank() == 0 else f"{line} (process {launcher.rank()})", file=sys.stderr)
