"""Every operator of a step: what it costs, and in which phase and part of the network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop, sdpa_flop

from step_profile.clock import Clock

Place: TypeAlias = tuple[str, str]  # phase and part

aten = torch.ops.aten
ALLOCATE_ONLY = {  # neither views by their schema nor work
    *(aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided),
    *(aten._unsafe_view, aten.unsafe_split, aten.is_same_size, aten._local_scalar_dense),
}
FLOPS = {
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
} | flop_registry


@dataclass
class Cost:
    """What operators cost together.

    Attributes:
        operators: how many; casts: of these, how many only change the type of numbers.
        flops: of matrix products and convolutions, forward and backward.
        moved_bytes: of their arguments and results.
        seconds: that they took, each by itself.
    """

    operators: int = 0
    casts: int = 0
    flops: float = 0
    moved_bytes: int = 0
    seconds: float = 0.0

    def __iadd__(self, other: Cost) -> Cost:
        for name in Cost.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


class Operators(TorchDispatchMode):
    """While entered, counts the operators that compute: those that a GPU launches one or more kernels for.

    What is counted are aten operators below autograd and autocast. Views and allocations are not; a fused operator over
    many tensors (the optimiser's, the EMA's) is one.

    Args:
        place: where the step is.
    """

    def __init__(self, place: Callable[[], Place], clock: Clock) -> None:
        super().__init__()
        self.place, self.clock = place, clock
        self._timed: list[tuple[Place, str, Cost, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if _only_looks(func):
            return func(*args, **kwargs)
        start = self.clock.stamp()
        result = func(*args, **kwargs)
        end = self.clock.stamp()
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        formula = FLOPS.get(func.overloadpacket)
        cost = Cost(
            operators=1,
            casts=int(_is_cast(func, given, made)),
            flops=0 if formula is None else formula(*args, **kwargs, out_val=result),
            moved_bytes=sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made)),
        )
        self._timed.append((self.place(), func.overloadpacket.__name__, cost, start, end))
        return result

    def costs(self) -> tuple[dict[Place, Cost], dict[str, Cost]]:
        """By place and by operator; to be asked for when the step is over."""
        places: dict[Place, Cost] = defaultdict(Cost)
        names: dict[str, Cost] = defaultdict(Cost)
        for place, name, cost, start, end in self._timed:
            cost.seconds = self.clock.seconds(start, end)
            places[place] += cost
            names[name] += cost
        return dict(places), dict(names)


def _only_looks(func: Any) -> bool:
    """Whether an operator gives another look at what there is, or room without content."""
    if func.overloadpacket in ALLOCATE_ONLY:
        return True
    aliases = [result.alias_info for result in func._schema.returns]
    return not func._schema.is_mutable and (not aliases or any(aliases))


def _is_cast(func: Any, given: list[Tensor], made: list[Tensor]) -> bool:
    if func.overloadpacket is aten._to_copy:
        return given[0].dtype != made[0].dtype
    return func.overloadpacket is aten.copy_ and given[0].dtype != given[1].dtype
