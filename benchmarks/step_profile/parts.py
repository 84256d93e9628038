"""Which part of a network an operator belongs to, in the forward pass and in backward."""

from __future__ import annotations

from bisect import bisect_right

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.method import Method

PARTS = (
    *("stem", "norms", "attention", "attention linears", "MLP", "MLP linears", "other"),  # of the backbone
    *("heads", "losses", "no part"),
)


def part_of(module: nn.Module, around: str) -> str:
    """The part that a module is, or that it is in.

    Linear layers are told apart from the attention and the MLP that they are in; all else goes with what is around it.
    """
    name = type(module).__name__
    if around in ("heads", "stem") or isinstance(module, ProjectionHead):
        return "heads" if around != "stem" else "stem"
    if "Stem" in name or "Embed" in name:
        return "stem"
    if "Norm" in name:
        return "norms"
    if "Attention" in name:
        return "attention"
    if "Mlp" in name:
        return "MLP"
    if isinstance(module, nn.Linear) and around in ("attention", "MLP"):
        return f"{around} linears"
    return around


class Parts:
    """Follows a method's modules by hooks; `now` is the part at work.

    Autograd numbers its nodes in the order of the forward pass, so that a node of backward is of the part that was at
    work when it got its number.
    """

    def __init__(self, method: Method) -> None:
        self._at_work: list[str] = []
        self._since: list[int] = []  # numbers of nodes, ascending, from which on ...
        self._part: list[str] = []  # ... another part was at work
        self._handles: list[RemovableHandle] = []
        self._follow(method, "losses", "no part")

    def _follow(self, module: nn.Module, part: str, around: str) -> None:
        if part != around:
            self._handles.append(module.register_forward_pre_hook(lambda *_: self._enter(part)))
            self._handles.append(module.register_forward_hook(lambda *_: self._leave()))
        for name, child in module.named_children():
            is_network = isinstance(module, Method) and name in ("teacher", "student")
            self._follow(child, "other" if is_network else part_of(child, part), part)

    def close(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()

    @property
    def now(self) -> str:
        """The part whose forward pass is on, or whose node of backward."""
        if self._at_work:  # also while backward computes a part anew
            return self._at_work[-1]
        node = torch._C._current_autograd_node()
        if node is None:
            return "no part"
        place = bisect_right(self._since, node._sequence_nr()) - 1
        return self._part[place] if 0 <= place < len(self._part) - 1 else "no part"

    def _enter(self, part: str) -> None:
        self._at_work.append(part)
        self._note()

    def _leave(self) -> None:
        self._at_work.pop()
        self._note()

    def _note(self) -> None:
        if torch._C._current_autograd_node() is None:
            self._since.append(torch.autograd._get_sequence_nr())
            self._part.append(self._at_work[-1] if self._at_work else "no part")
