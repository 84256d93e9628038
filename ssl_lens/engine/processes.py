"""The processes of a run, as a launcher started them, or this one alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from joblib import cpu_count

from ssl_lens.errors import InputError


def join_processes(
    *,
    cpu: bool,
    precision: Literal["no", "bf16", "fp16"],
    cpu_threads: int | None,
    trackers: list[str] | None = None,
    tracker_folder: Path | None = None,
) -> Accelerator:
    """Accelerate for this process, one of those that `accelerate launch` or torchrun started.

    A machine without GPUs computes on its processors, whatever the launcher was asked for; another run in the same
    process may have had another precision.

    Args:
        cpu: whether to leave GPUs alone.
        cpu_threads: of each process; None for an even share of the cores.

    Raises: InputError if the launcher started several processes that do not know of each other.
    """
    AcceleratorState._reset_state(reset_partial_state=True)  # of a run before, in a notebook
    cpu = cpu or not torch.cuda.is_available()
    accelerator = Accelerator(
        cpu=cpu, mixed_precision=precision, log_with=trackers, project_dir=tracker_folder
    )  # fmt: skip
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != accelerator.num_processes:
        raise InputError(
            f"the launcher started {launched} processes, of which each sees {accelerator.num_processes}; they would "
            "train apart in one folder: start them with torchrun, or with `accelerate launch` for several GPUs"
        )
    if accelerator.device.type == "cpu":  # `accelerate launch` sets one thread, whatever the cores
        torch.set_num_threads(cpu_threads or max(1, cpu_count() // accelerator.num_processes))
    return accelerator
