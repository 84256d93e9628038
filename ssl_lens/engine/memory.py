"""What a step that does not fit the memory of its device is reported as."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ssl_lens.errors import InputError

GIB = 2**30
_OF_THE_PROCESSOR = "can't allocate memory"  # what torch says of its own memory, in a RuntimeError


@contextlib.contextmanager
def lack_of_memory_reported(device: torch.device, batch_size: int, accumulate: int, processes: int) -> Iterator[None]:
    """While entered, a lack of memory is an InputError that says in how many parts the batch may fit.

    Args:
        batch_size: images of a step over all processes. accumulate: micro-batches of a step on each.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.cuda.OutOfMemoryError) and _OF_THE_PROCESSOR not in str(error):
            raise
        raise InputError(
            f"{_size(device)} cannot hold {batch_size // (accumulate * processes)} images at once, those of "
            f"batch_size={batch_size} with accumulate={accumulate}; {_advice(batch_size, accumulate, processes)}"
        ) from error


def _size(device: torch.device) -> str:
    if device.type != "cuda":
        return "this machine's memory"
    return f"the GPU's memory of {torch.cuda.get_device_properties(device).total_memory / GIB:.0f} GiB"


def _advice(batch_size: int, accumulate: int, processes: int) -> str:
    """The next number of parts, at least twice as many, that share the batch evenly and leave two images to each."""
    for parts in range(2 * accumulate, batch_size // (2 * processes) + 1):
        if batch_size % (parts * processes) == 0:
            return (
                f"set accumulate={parts}, for the same batch in smaller parts, and begin anew with resume=restart; "
                "or lower batch_size"
            )
    return "lower batch_size, or train a smaller network or on smaller crops"
