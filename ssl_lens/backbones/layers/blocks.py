"""Blocks of a stage, of which backward may compute the insides again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Blocks(nn.ModuleList):
    """Blocks that follow each other.

    Attributes:
        checkpointing: whether of each block only what it is given is kept for backward, which computes it again: a
            third more products for a fraction of the memory.
    """

    checkpointing = False

    def run(self, block: nn.Module, x: Tensor, *others: Any) -> Any:
        """block(x, *others), one of these."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, *others, use_reentrant=False)
        return block(x, *others)


def checkpoint_blocks(network: nn.Module) -> bool:
    """Turns `checkpointing` on in all parts of a network; whether it has any."""
    stages = [module for module in network.modules() if isinstance(module, Blocks)]
    for stage in stages:
        stage.checkpointing = True
    return bool(stages)
