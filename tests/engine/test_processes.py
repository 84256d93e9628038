"""The processes of a run: what a launcher started is what trains together."""

import pytest
import torch
from accelerate.state import AcceleratorState

from ssl_lens.engine.processes import join_processes
from ssl_lens.errors import InputError


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a launcher starts two that each believe to be alone: they would train apart in one folder."""

    class Alone:
        def __init__(self, **settings: object) -> None:
            self.num_processes = 1

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("ssl_lens.engine.processes.Accelerator", Alone)
    with pytest.raises(InputError, match="started 2 processes, of which each sees 1; they would train apart"):
        join_processes(cpu=True, precision="no", cpu_threads=1)


def test_another_precision_in_the_same_process() -> None:
    threads = torch.get_num_threads()
    try:
        for precision in ("no", "bf16", "no"):
            accelerator = join_processes(cpu=True, precision=precision, cpu_threads=1)
            assert accelerator.mixed_precision == precision
            assert torch.get_num_threads() == 1
            accelerator.end_training()
    finally:
        torch.set_num_threads(threads)
        AcceleratorState._reset_state(reset_partial_state=True)
