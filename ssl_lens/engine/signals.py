"""Signals that ask a run to stop."""

from __future__ import annotations

import logging
import signal
from types import FrameType

logger = logging.getLogger(__name__)


class InterruptedRun(Exception):  # noqa: N818, an order obeyed, not an error
    """The run was asked to stop, and has saved; the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class StopSignals:
    """While entered, SIGINT and SIGTERM are noted instead of ending the process; a second one ends it."""

    def __init__(self) -> None:
        self.asked = False
        self.number = 0

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            self.__exit__()
            raise KeyboardInterrupt
        self.asked, self.number = True, number
        logger.warning("%s: finishing this step, then saving", signal.Signals(number).name)
