"""Encoder and heads together: what the student is, and the teacher too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.lowered_weights import lowered_weights


class Output(NamedTuple):
    """What a network says about V views of B images; views in the order of the crops given.

    Attributes:
        view_features: backbone features of the views, before the head, [V, B, D].
        view_logits: [V, B, K], or None without a view head.
        region_logits: one [V_r, B, N_r, K] per resolution, or None without a region head.
        regions: backbone features of the same regions, before the head, one [V_r, B, N_r, D] per resolution, or None.
    """

    view_features: Tensor
    view_logits: Tensor | None
    region_logits: tuple[Tensor, ...] | None
    regions: tuple[Tensor, ...] | None


class Network(nn.Module):
    """A backbone with a head for views, another for regions, or both.

    Each resolution goes through the backbone in one pass. Each head then sees all rows at once (crop-major, then
    image, then token), which matters to its batch norm.

    Source: EsViT (Li et al. 2021), MultiCropWrapper with dense prediction.
    """

    def __init__(
        self, backbone: Encoder, view_head: ProjectionHead | None, region_head: ProjectionHead | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.view_head = view_head
        self.region_head = region_head

    def forward(self, crops: Sequence[Tensor]) -> Output:
        """Runs crops [V_r, B, C, S_r, S_r], one tensor per resolution, and returns the output for all V = sum V_r."""
        with lowered_weights(self, crops[0].device.type):
            return self._output(crops)

    def _output(self, crops: Sequence[Tensor]) -> Output:
        features = self.backbone.each([crop.flatten(0, 1) for crop in crops])
        view_features = torch.cat([feature.view for feature in features])
        view_logits = None if self.view_head is None else self.view_head(view_features)
        view_features = view_features.unflatten(0, (-1, crops[0].shape[1]))
        if view_logits is not None:
            view_logits = view_logits.unflatten(0, (-1, crops[0].shape[1]))
        if self.region_head is None:
            return Output(view_features, view_logits, None, None)

        tokens = torch.cat([feature.regions.flatten(0, 1) for feature in features])
        token_logits = self.region_head(tokens).split([feature.regions[..., 0].numel() for feature in features])
        region_logits = (
            logits.unflatten(0, (*crop.shape[:2], -1)) for crop, logits in zip(crops, token_logits, strict=True)
        )
        regions = (feature.regions.unflatten(0, crop.shape[:2]) for crop, feature in zip(crops, features, strict=True))
        return Output(view_features, view_logits, tuple(region_logits), tuple(regions))
