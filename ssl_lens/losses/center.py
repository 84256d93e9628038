"""What keeps the teacher's targets from collapsing: centering, or an equal partition by Sinkhorn-Knopp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn

from ssl_lens.errors import InputError


class Centering(nn.Module):
    """Subtracts a running mean of the teacher's logits, so that no prototype takes all images.

    targets = softmax((logits - center) / teacher_temp);   center <- m center + (1 - m) mean(logits)

    Args:
        out_dim: number of prototypes K.
        momentum: m, per step.

    Attributes:
        center: buffer [K]; zero at the start, the same on every rank.

    Source: DINO (Caron et al. 2021), eq. 4.
    """

    center: torch.Tensor

    def __init__(self, out_dim: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(out_dim))

    @torch.no_grad()
    def targets(self, logits: torch.Tensor, teacher_temp: float) -> torch.Tensor:
        """Teacher logits [..., K] to probabilities [..., K], float32 or wider, without gradient.

        Raises: InputError if K differs from the centre's.
        """
        if logits.shape[-1] != len(self.center):
            raise InputError(
                f"the teacher gives {logits.shape[-1]} logits, the centre has out_dim={len(self.center)}; "
                "give head and loss the same out_dim"
            )
        return (at_least_float32(logits) - self.center).div_(teacher_temp).softmax(dim=-1)

    @torch.no_grad()
    def update(self, logits: Sequence[torch.Tensor]) -> None:
        """Moves the centre towards the mean of all rows of the tensors [..., K], over all ranks."""
        sums = [at_least_float32(part).flatten(0, -2).sum(dim=0) for part in logits]
        total = sum(sums[1:], start=sums[0])
        rows = total.new_full((1,), sum(part[..., 0].numel() for part in logits))
        total_and_rows = _all_reduce(torch.cat([total, rows]), dist.ReduceOp.SUM)
        mean = total_and_rows[:-1] / total_and_rows[-1]
        self.center.lerp_(mean.to(self.center.dtype), 1 - self.momentum)


class SinkhornKnopp(nn.Module):
    """Spreads the rows of a batch evenly over the prototypes; holds no state.

    Starting from exp(logits / teacher_temp), alternately scales each prototype to the same mass over the rows of all
    ranks and each row to mass one. All rows of one call are one batch: views, images and tokens together.

    Args:
        iterations: rounds of the alternation.

    Source: SwAV (Caron et al. 2020), as used for DINO by DINOv2. Differs: computed with logarithms, which cannot
    overflow, and never divides by an empty prototype.
    """

    def __init__(self, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    @torch.no_grad()
    def targets(self, logits: torch.Tensor, teacher_temp: float) -> torch.Tensor:
        """Teacher logits [..., K] to probabilities [..., K], float32 or wider, without gradient."""
        log_q = at_least_float32(logits).flatten(0, -2) / teacher_temp
        for _ in range(self.iterations):
            log_q = log_q - _logsumexp_over_rows(log_q)
            log_q = log_q.log_softmax(dim=-1)
        return log_q.exp().view(logits.shape)

    def update(self, logits: Sequence[torch.Tensor]) -> None:
        """Does nothing: there is no centre."""


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Widens half precision to float32, in which all losses are computed; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _logsumexp_over_rows(log_q: torch.Tensor) -> torch.Tensor:
    """log sum_rows exp(log_q [rows, K]) over the rows of all ranks, [K]."""
    top = _all_reduce(log_q.amax(dim=0), dist.ReduceOp.MAX)
    return top + _all_reduce((log_q - top).exp().sum(dim=0), dist.ReduceOp.SUM).log()


def _all_reduce(tensor: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(tensor, operation)
    return tensor
