"""What keeps the teacher's targets from collapsing: centering, or an equal partition by Sinkhorn-Knopp."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn

from ssl_lens.errors import InputError

NUMBERS_AT_ONCE = 2**26  # logits that are widened to float32 together: 256 MiB


class Targets(nn.Module, ABC):
    """The teacher's targets: a softmax of its logits [..., K], less what all rows share of a prototype.

    targets = softmax((logits - shift) / teacher_temp)
    """

    @abstractmethod
    def shift(self, logits: Sequence[torch.Tensor], teacher_temp: float) -> torch.Tensor:
        """The shift [K] for all rows of these tensors [..., K], float32 or wider, the same on every rank."""

    @abstractmethod
    def update(self, logits: Sequence[torch.Tensor]) -> None:
        """Learns from all rows of these tensors [..., K], over all ranks."""

    @torch.no_grad()
    def targets(self, logits: torch.Tensor, teacher_temp: float) -> torch.Tensor:
        """Teacher logits [..., K] to probabilities [..., K], float32 or wider, without gradient.

        Raises: as `shift`.
        """
        return shifted_softmax(logits, self.shift([logits], teacher_temp), teacher_temp)


class Centering(Targets):
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

    def shift(self, logits: Sequence[torch.Tensor], teacher_temp: float) -> torch.Tensor:
        """The centre.

        Raises: InputError if K differs from the centre's.
        """
        if logits[0].shape[-1] != len(self.center):
            raise InputError(
                f"the teacher gives {logits[0].shape[-1]} logits, the centre has out_dim={len(self.center)}; "
                "give head and loss the same out_dim"
            )
        return self.center

    @torch.no_grad()
    def update(self, logits: Sequence[torch.Tensor]) -> None:
        """Moves the centre towards the mean of all rows of the tensors [..., K], over all ranks."""
        total = sum(part.sum(dim=0) for part in _wide_parts(logits))
        assert isinstance(total, torch.Tensor)
        rows = total.new_full((1,), sum(part[..., 0].numel() for part in logits))
        total_and_rows = _all_reduce(torch.cat([total, rows]), dist.ReduceOp.SUM)
        mean = total_and_rows[:-1] / total_and_rows[-1]
        self.center.lerp_(mean.to(self.center.dtype), 1 - self.momentum)


class SinkhornKnopp(Targets):
    """Spreads the rows of a batch evenly over the prototypes; holds no state.

    Starting from exp(logits / teacher_temp), alternately scales each prototype to the same mass over the rows of all
    ranks and each row to mass one. All rows of one call are one batch: views, images and tokens together.

    Args:
        iterations: rounds of the alternation.

    Source: SwAV (Caron et al. 2020), as used for DINO by DINOv2. Differs: computed with logarithms, which cannot
    overflow, and never divides by an empty prototype; what is kept of the rounds are the prototypes' scales alone.
    """

    def __init__(self, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations

    @torch.no_grad()
    def shift(self, logits: Sequence[torch.Tensor], teacher_temp: float) -> torch.Tensor:
        """The logarithm of what each prototype is divided by, in units of logits."""
        log_scale = logits[0].new_zeros(logits[0].shape[-1], dtype=_wide(logits[0].dtype))
        for i in range(self.iterations):
            parts = []
            for part in _wide_parts(logits):
                log_q = part / teacher_temp - log_scale
                parts.append((log_q.log_softmax(dim=-1) if i else log_q).logsumexp(dim=0))
            log_scale = log_scale + _logsumexp(parts)
        return log_scale * teacher_temp

    def update(self, logits: Sequence[torch.Tensor]) -> None:
        """Does nothing: there is no centre."""


def shifted_softmax(logits: torch.Tensor, shift: torch.Tensor, temp: float) -> torch.Tensor:
    """softmax((logits - shift) / temp) of logits [..., K], float32 or wider."""
    return (at_least_float32(logits) - shift).div_(temp).softmax(dim=-1)


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Widens half precision to float32, in which all losses are computed; float64 stays."""
    return tensor.to(_wide(tensor.dtype))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _wide_parts(logits: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The rows of tensors [..., K], so many at once as may be widened together, [R, K]."""
    for tensor in logits:
        yield from map(at_least_float32, tensor.flatten(0, -2).split(max(1, NUMBERS_AT_ONCE // tensor.shape[-1])))


def _logsumexp(parts: list[torch.Tensor]) -> torch.Tensor:
    """log sum exp(values [K]) over parts and ranks."""
    values = parts[0] if len(parts) == 1 else torch.stack(parts).logsumexp(dim=0)
    if not _has_ranks():
        return values
    top = _all_reduce(values.clone(), dist.ReduceOp.MAX)
    return top + _all_reduce((values - top).exp(), dist.ReduceOp.SUM).log()


def _all_reduce(tensor: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
    if _has_ranks():
        dist.all_reduce(tensor, operation)
    return tensor


def _has_ranks() -> bool:
    return dist.is_available() and dist.is_initialized()
