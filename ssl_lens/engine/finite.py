"""What keeps a step that is not finite from leaving a trace in what is trained or in its statistics."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def all_finite(*tensors: Tensor) -> list[bool]:
    """Whether every number of a tensor is finite, for each tensor, on this rank; waits for the device once."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).tolist()


def any_rank(flags: Iterable[bool], device: torch.device) -> list[bool]:
    """Each flag, true on every rank if it is true on one."""
    if not dist.is_initialized():
        return list(flags)
    shared = torch.tensor([float(flag) for flag in flags], device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return [bool(flag) for flag in shared]


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
