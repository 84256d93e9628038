"""Accelerate keeps its state for a process; tests want each command to start afresh, on one thread."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from ssl_lens.evaluation import finetune


@pytest.fixture(autouse=True)
def fresh_accelerate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(finetune, "cpu_count", lambda: 1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
