"""The processes of a run, as a launcher started them, or this one alone."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from joblib import cpu_count

from ssl_lens import launcher
from ssl_lens.errors import InputError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_OF_OTHERS = ("gloo", "Gloo", "Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL")


class LostProcessError(InputError):
    """Another process of the run has ended or does not answer; it says why itself, if it can."""


def join_processes(
    *,
    cpu: bool,
    precision: Literal["no", "bf16", "fp16"],
    cpu_threads: int | None,
    rank_timeout_s: int = 1800,
    trackers: list[str] | None = None,
    tracker_folder: Path | None = None,
) -> Accelerator:
    """Accelerate for this process, one of those that `accelerate launch` or torchrun started.

    A machine without GPUs computes on its processors, whatever the launcher was asked for; another run in the same
    process may have had another precision.

    Args:
        cpu: whether to leave GPUs alone.
        cpu_threads: of each process; None for an even share of the cores.
        rank_timeout_s: how long the processes wait for one that does not answer.

    Raises: InputError if the launcher started several processes that do not know of each other.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # of a run before, in a notebook
    cpu = cpu or not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=precision,
        log_with=trackers,
        project_dir=tracker_folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=rank_timeout_s))],
    )
    launched = launcher.world_size()
    if launched != accelerator.num_processes:
        raise InputError(
            f"the launcher started {launched} processes, of which each sees {accelerator.num_processes}; they would "
            "train apart in one folder: start them with torchrun, or with `accelerate launch` for several GPUs"
        )
    if accelerator.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
        torch.set_num_threads(cpu_threads or max(1, cpu_count() // accelerator.num_processes))
        _keep_freed_memory()
    return accelerator


def _keep_freed_memory() -> None:
    """Has glibc keep the memory of freed tensors for the next: to fetch it page by page takes an eighth of a step."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def lost_processes_reported() -> Iterator[None]:
    """While entered, what a collective raises for want of another process is a `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not any(word in str(error) for word in _OF_OTHERS):
            raise
        raise LostProcessError(
            "another process of this run has ended, or has not answered for rank_timeout_s; what it says is above or "
            "below; resume=auto continues from the last checkpoint"
        ) from error
