"""The whole objective: view loss and region loss, weighted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.network import Output


class Losses(NamedTuple):
    """Scalars in nats; `region` is None without a region loss."""

    total: torch.Tensor
    view: torch.Tensor
    region: torch.Tensor | None


class Criterion(nn.Module):
    """view_weight * view loss + region_weight * region loss, or the view loss alone where there is no region loss.

    Source: EsViT (Li et al. 2021), whose code weighs both by 1/2; without regions, DINO.
    """

    def __init__(
        self,
        view_loss: ViewLoss,
        region_loss: RegionLoss | None = None,
        view_weight: float = 0.5,
        region_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.view_loss = view_loss
        self.region_loss = region_loss
        self.view_weight = view_weight
        self.region_weight = region_weight

    def forward(self, student: Output, target: Output, *, teacher_temp: float) -> Losses:
        view = self.view_loss(student.view_logits, target.view_logits, teacher_temp=teacher_temp)
        if self.region_loss is None:
            return Losses(view, view, None)
        assert student.region_logits is not None, "the network has no region head"
        region = self.region_loss(
            student.region_logits, student.regions, target.region_logits, target.regions, teacher_temp=teacher_temp
        )
        return Losses(self.view_weight * view + self.region_weight * region, view, region)

    def update_center(self, targets: Sequence[Output]) -> None:
        """Updates the centres, once after a step; several outputs (gradient accumulation) count as one batch."""
        self.view_loss.update_center(torch.cat([target.view_logits for target in targets], dim=1))
        if self.region_loss is not None:
            self.region_loss.update_center([logits for target in targets for logits in target.region_logits])
