"""The groups of turns and flips that steerable layers know, and what such a layer can be folded to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

from torch import Tensor, nn

from ssl_lens.errors import InputError

ORDERS = {"C4": 4, "C8": 8, "D4": 8, "D8": 16}  # C: turns by 360° / 4 or / 8; D: with reflections
Group: TypeAlias = Literal["C4", "C8", "D4", "D8"]


def group_order(group: str) -> int:
    """Number of elements of a group.

    Raises: InputError for a group that is not among C4, C8, D4, D8.
    """
    if group not in ORDERS:
        raise InputError(f"group={group!r} is not known; use one of {', '.join(ORDERS)}")
    return ORDERS[group]


class Foldable(nn.Module, ABC):
    """A layer that is a plain convolution as soon as its weights no longer change."""

    def of_batch(self, x: Tensor) -> Callable[[Tensor], Tensor] | None:
        """What this layer does to any part of the batch `x`; None where that is not known before it is done to all."""
        return None

    @abstractmethod
    def folded(self) -> dict[str, Tensor]:
        """State dict of the plain convolution that equals this layer in evaluation mode."""


class Expandable(Foldable):
    """A layer whose filter is expanded from its weights.

    Attributes:
        expanded: the filter that all calls use for as long as `expanded_once` lasts; None otherwise.
    """

    expanded: Tensor | None = None

    @abstractmethod
    def expand(self) -> Tensor:
        """The filter, by the present weights."""

    def filter(self) -> Tensor:
        """The expanded filter [out_channels, in_channels / groups, kernel_size, kernel_size]."""
        return self.expand() if self.expanded is None else self.expanded


@contextmanager
def expanded_once(network: nn.Module) -> Iterator[None]:
    """Within, each filter of a network is expanded once for all calls; none outlives it, so none is ever stale.

    In a network that is compiled nothing changes: there, to expand filters is a part of its one graph.
    """
    compiled = any(module._compiled_call_impl is not None for module in network.modules())
    layers = [] if compiled else [module for module in network.modules() if isinstance(module, Expandable)]
    for layer in layers:
        layer.expanded = layer.expand()
    try:
        yield
    finally:
        for layer in layers:
            layer.expanded = None
