"""Processes that make items ahead of their use, each with a pipe of its own."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_AHEAD = 2  # items that wait in a reader for their pipe
_END = object()


class ReaderKilledError(Exception):
    """A reader was ended by a signal from outside."""


class Readers(Generic[Item]):
    """An iterator over the items of several readers in turn, beginning with the first reader.

    torch's loader has one pipe for all its workers, which it holds open itself: one that is killed while it sends
    leaves a part of a message there, and the run waits for the rest for ever. Here the pipe closes with its reader.

    Args:
        make: what a reader does: its number becomes an iterator without end. It is pickled.
        count: of readers.
    """

    def __init__(self, make: Callable[[int], Iterator[Item]], count: int) -> None:
        context = _context()
        self.processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._turn = 0
        for number in range(count):
            receiving, sending = context.Pipe(duplex=False)
            process = context.Process(target=_send_items, args=(sending, make, number), daemon=True)
            process.start()
            sending.close()  # so that the reader's is the only one
            self.processes.append(process)
            self._pipes.append(receiving)
        atexit.register(self.close)  # before multiprocessing waits for the readers

    def __iter__(self) -> Readers[Item]:
        return self

    def __next__(self) -> Item:
        number = self._turn % len(self._pipes)
        try:
            item: Item = self._pipes[number].recv()
        except (EOFError, OSError):
            self.processes[number].join()
            status = self.processes[number].exitcode
            self.close()
            if status is not None and status < 0:
                raise ReaderKilledError from None
            raise RuntimeError(f"a reading process failed with exit status {status}; its error is above") from None
        self._turn += 1
        return item

    def close(self) -> None:
        """Ends the readers, each when it next sends."""
        atexit.unregister(self.close)
        for pipe in self._pipes:
            pipe.close()


def _send_items(pipe: Connection, make: Callable[[int], Iterator[Any]], number: int) -> None:
    # What asks a run to stop may reach all of its processes; it needs its readers until it has.
    for asks_to_stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(asks_to_stop, signal.SIG_IGN)
    items: queue.Queue[Any] = queue.Queue(_AHEAD)
    sender = threading.Thread(target=_send, args=(pipe, items))
    sender.start()
    try:
        for item in make(number):
            items.put(item)
    finally:
        items.put(_END)
        sender.join()


def _send(pipe: Connection, items: queue.Queue[Any]) -> None:
    while (item := items.get()) is not _END:
        try:
            pipe.send(item)
        except OSError:  # nobody reads any more
            os._exit(0)


def _context() -> Any:
    """Starts readers from a fresh process: a fork of this one would copy held locks and the GPU's state."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_lens.data.shards.stream"])  # once for all readers
    return context
