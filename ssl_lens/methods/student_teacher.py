"""The teacher: a copy of the student that follows it slowly."""

from __future__ import annotations

import copy

import torch
from timm.layers import DropPath
from torch import nn

from ssl_lens.methods.network import Network


def make_teacher(student: Network) -> Network:
    """An exact copy of the student that takes no gradient and drops no paths.

    It is left in training mode, and must stay there: its batch norms use and collect statistics of their own.
    Source: EsViT (Li et al. 2021), train_esvit.
    """
    teacher = copy.deepcopy(student).train().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, over parameters; buffers are left alone.

    Args:
        student: the module itself, unwrapped of DDP.
        momentum: at 1 the teacher stands still.

    Source: DINO (Caron et al. 2021), section 3.1.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
