"""What keeps a step that is not finite from leaving a trace in what is trained or in its statistics."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def not_finite(tensor: Tensor) -> Tensor:
    """Whether a number of a tensor is not finite, bool [] on its device."""
    return ~tensor.isfinite().all()


def any_rank(flags: Iterable[Tensor | bool], device: torch.device) -> list[bool]:
    """Each flag, true on every rank if it is true on one; waits for the device once.

    Args:
        flags: bool [] on the device, or known to the processor.
    """
    shared = torch.stack(
        [torch.full((), float(flag), device=device) if isinstance(flag, bool) else flag.float() for flag in flags]
    )
    if dist.is_initialized():
        dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared.tolist()]


class RunningStatistics:
    """Batch-norm statistics before a step, which its forward passes change even where the step is then skipped."""

    def __init__(self, *networks: nn.Module) -> None:
        norms = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
        self._buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
        self._before: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        self._before = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore(self) -> None:
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)
