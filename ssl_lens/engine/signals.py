"""What asks a run to stop: signals, and the end of its launcher."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from ssl_lens import launcher

logger = logging.getLogger(__name__)

STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # Ctrl-C, kill, a closed terminal, schedulers
_AGAIN_S = 1.0  # after which a further Ctrl-C is a person's, not the same one passed on by a launcher
_LOOKING_S = 0.5


class InterruptedRun(Exception):  # noqa: N818, an order obeyed, not an error
    """The run was asked to stop, and has; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class StopSignals:
    """While entered, signals that ask to stop raise `InterruptedRun`, or, within `noted`, are noted for the loop.

    A second Ctrl-C ends the process at once. Under `nohup`, which ignores SIGHUP, it stays ignored. Who is started
    by a launcher is asked to stop when that ends, whose own signals do not always reach the processes it started.
    Signals are handled by the main thread of a program; entered elsewhere, this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number = 0
        self._noting = False
        self._since = 0.0
        self._before: dict[signal.Signals, object] = {}
        self._left = threading.Event()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
            for number in STOP:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
            if launcher.is_launched():
                threading.Thread(target=self._watch, args=(os.getppid(),), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._left.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """While entered, signals wait until who looks at `asked` stops."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number == signal.SIGHUP:
            self._leave_terminals()
        if not self.asked:
            self.asked, self.number, self._since = True, number, time.monotonic()
            if self._noting:
                logger.warning("%s: finishing this step, then saving", name)
            else:
                raise InterruptedRun(f"stopped by {name} before training; nothing is lost, start it again", number)
        elif number == signal.SIGINT and time.monotonic() - self._since > _AGAIN_S:
            self.__exit__()
            raise KeyboardInterrupt

    def _leave_terminals(self) -> None:
        """What is written to a terminal that is gone would be an error."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(nowhere, stream)
        os.close(nowhere)

    def _watch(self, parent: int) -> None:
        while not self._left.wait(_LOOKING_S):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return
