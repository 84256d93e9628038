"""The encoders of a method compiled where they are, so that nothing that is saved of them changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.methods.method import Method


def compile_encoders(method: Method, *, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compiles each encoder of a method as a whole, once for each size of its crops.

    It stays the module that it was: its state dict is the same, its copies and what is exported of it are not compiled.
    Random numbers, such as those of drop path, are those of the plain encoder.
    """
    options = {"fallback_random": True} if backend == "inductor" else None
    for encoder in _outermost_encoders(method):
        encoder.compile(dynamic=False, backend=backend, options=options)


def compiler_problem(device: torch.device) -> str | None:
    """Why nothing can be compiled for a device, in a line; None if it can: a sum is, to see."""
    compiled = torch.compile(_one_more, dynamic=False)
    try:
        compiled(torch.zeros(2, device=device))
    except Exception as error:  # of many types: no compiler, no headers, no triton, no room
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None


def _one_more(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def _outermost_encoders(module: nn.Module) -> Iterator[Encoder]:
    for child in module.children():
        if isinstance(child, Encoder):
            yield child
        else:
            yield from _outermost_encoders(child)
