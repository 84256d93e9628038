"""Time on the device that computes."""

from __future__ import annotations

import time
from typing import Any

import torch


class Clock:
    """Stamps that cost a GPU no waiting; their distance is asked for once all is done."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def stamp(self) -> Any:
        """A moment: of the processor, or a place in the queue of the GPU."""
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Between two stamps."""
        if not self.on_gpu:
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000
