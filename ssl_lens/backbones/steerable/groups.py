"""The groups of turns and flips that steerable layers know, and what such a layer can be folded to."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

    @abstractmethod
    def folded(self) -> dict[str, Tensor]:
        """State dict of the plain convolution that equals this layer in evaluation mode."""
