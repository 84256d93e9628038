"""The optimiser and the two things done to gradients before it steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


def adamw(module: nn.Module) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, fused where torch can; learning rate and weight decay are 0 until they are set."""
    device_type = next(module.parameters()).device.type
    return torch.optim.AdamW(parameter_groups(module), lr=0.0, weight_decay=0.0, fused=device_type in ("cpu", "cuda"))


def parameter_groups(module: nn.Module) -> list[dict]:
    """Group 0: what weight decay acts on. Group 1: biases and all 1-D parameters (norms), never decayed.

    Frozen parameters are in neither. Tables, tokens, the last layer's lengths and 0-D parameters are decayed, as in
    the source: DINO (Caron et al. 2021), utils.get_params_groups.
    """
    decayed: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            group = undecayed if name.endswith(".bias") or parameter.ndim == 1 else decayed
            group.append(parameter)
    return [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]


def set_hyperparameters(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Writes the learning rate into both groups, the weight decay into group 0."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.param_groups[0]["weight_decay"] = weight_decay


@torch.no_grad()
def clip_per_tensor(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scales each gradient by min(1, max_norm / (|g| + 1e-6)), every parameter tensor by itself.

    Returns: the l2 norms before clipping, one per parameter that has a gradient.
    Source: DINO (Caron et al. 2021), utils.clip_gradients. Not the global norm of `clip_grad_norm_`.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.empty(0)
    norms = torch.stack(torch._foreach_norm(gradients))
    scales = (max_norm / (norms + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, list(scales.unbind()))
    return norms
