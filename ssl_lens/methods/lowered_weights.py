"""The weights of a network in the precision of autocast, cast all at once rather than layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function


class _Weight(NamedTuple):
    owner: nn.Module
    name: str
    value: nn.Parameter


@contextmanager
def lowered_weights(network: nn.Module, device_type: str) -> Iterator[None]:
    """While entered under autocast, linear layers have weights in its precision.

    Autocast itself casts each weight where it is used, in a teacher once per use. Gradients reach the weights as they
    are, in float32.
    """
    weights = _weights(network) if torch.is_autocast_enabled(device_type) else []
    if not weights:
        yield
        return
    lowered = _Cast.apply(torch.get_autocast_dtype(device_type), *(weight.value for weight in weights))
    for weight, value in zip(weights, lowered, strict=True):
        weight.owner._parameters[weight.name] = value
    try:
        yield
    finally:
        for weight in weights:
            weight.owner._parameters[weight.name] = weight.value


def _weights(network: nn.Module) -> list[_Weight]:
    return [
        _Weight(module, name, value)
        for module in network.modules()
        if isinstance(module, nn.Linear)
        for name, value in module._parameters.items()
        if value is not None and value.dtype == torch.float32
    ]


class _Cast(Function):
    @staticmethod
    def forward(ctx, dtype, *weights):  # type: ignore[no-untyped-def]
        return tuple(_as(dtype, weights))

    @staticmethod
    def backward(ctx, *gradients):  # type: ignore[no-untyped-def]
        given = [gradient for gradient in gradients if gradient is not None]
        wide = iter(_as(torch.float32, given))
        return None, *(None if gradient is None else next(wide) for gradient in gradients)


def _as(dtype: torch.dtype, tensors: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies
