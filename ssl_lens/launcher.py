"""The processes that a launcher (`torchrun`, `accelerate launch`) started together."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

_MARKS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # in the environment of processes they start
_CONNECTING = timedelta(seconds=2)
_LOOKING_S = 0.1


def rank() -> int:
    """The number of this process among those of the launcher; 0 for one alone."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_launched() -> bool:
    """Whether a launcher started this process, which then has nothing to do without it."""
    return any(mark in os.environ for mark in _MARKS)


def speaks_first(message: str) -> bool:
    """Whether this process is the first with something to say; all say it where they cannot ask each other."""
    if world_size() == 1:
        return True
    key = hashlib.sha256(message.encode()).hexdigest()
    try:
        return _store().add(_key(key), 1) == 1
    except (RuntimeError, LookupError, ValueError):
        return True


@contextlib.contextmanager
def first_rank_first(name: str) -> Iterator[None]:
    """The others enter when the first rank has left, however long it takes: collectives would give up waiting."""
    if world_size() == 1:
        yield
        return
    store, key = _store(), _key(name)
    if rank() == 0:
        try:
            yield
        finally:
            store.set(key, "done")
    else:
        while not store.check([key]):
            time.sleep(_LOOKING_S)
        yield


def _store() -> TCPStore:
    """The table of keys that the processes share; that of `torchrun` outlives each of them.

    Raises: RuntimeError if there is none; LookupError or ValueError if its address is not known.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, timeout=_CONNECTING, wait_for_workers=False)


def _key(name: str) -> str:
    return f"ssl_lens/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{name}"
