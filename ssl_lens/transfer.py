"""Tensors on their way to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the processor on a device, without waiting for what the device has still to do.

    A plain copy to a GPU comes from memory that the system may move, so that the processor waits until it is done,
    behind all that the GPU was given before.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
