"""How bad input is told to the user: one line, exit status 2."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable

from ssl_lens.extras import what_to_install


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one line: given, needed, what to change."""


def one_line_errors(main: Callable[..., int | None]) -> Callable[..., int]:
    """Wraps an entry point: an `InputError` becomes one line on stderr (of the first rank) and exit status 2.

    So does a library that is missing and belongs to an extra. `SSL_LENS_DEBUG=1` shows the traceback as well.
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
        except (InputError, ModuleNotFoundError) as error:
            message = what_to_install(error) if isinstance(error, ModuleNotFoundError) else error
            if message is None:
                raise
            if os.environ.get("SSL_LENS_DEBUG") == "1":
                traceback.print_exc()
            if os.environ.get("RANK", "0") == "0":
                print(f"error: {message}", file=sys.stderr)
            return 2

    return wrapped
