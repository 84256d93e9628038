"""The projection head that turns features into logits over K prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from ssl_lens.backbones.layers.products import gelu_linear


class ProjectionHead(nn.Module):
    """Three-layer perceptron, l2-normalised bottleneck, weight-normalised last layer.

    h = Linear - [BatchNorm] - GELU - Linear - [BatchNorm] - GELU - Linear;  z = h / |h|;
    logits_k = g_k <v_k / |v_k|, z>.

    View and region head are two such modules that share no weights.

    Args:
        in_dim: width D of the features.
        out_dim: number of prototypes K.
        hidden_dim: width of the two hidden layers.
        bottleneck_dim: width of z.
        norm_last_layer: keep every prototype's length g_k at 1, which is steadier and slightly less accurate.
        batch_norm: normalise the hidden layers over the batch, so that look-alike images spread over the prototypes.

    Shapes: features [..., D] -> logits [..., K].
    Source: DINO (Caron et al. 2021), DINOHead. The hidden layers keep their bias next to batch norm, as there.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = False,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            *_hidden_layer(in_dim, hidden_dim, batch_norm),
            *_hidden_layer(hidden_dim, hidden_dim, batch_norm),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        # The name is what optim.freeze_last_layer looks for; original0 is g [K, 1], original1 is v [K, bottleneck].
        self.last_layer = weight_norm(nn.Linear(bottleneck_dim, out_dim, bias=False))
        lengths = self.last_layer.parametrizations.weight.original0
        nn.init.ones_(lengths)
        lengths.requires_grad_(not norm_last_layer)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        rows = features.flatten(0, -2)  # BatchNorm1d wants one row per sample
        for before, layer in zip((None, *self.mlp), self.mlp, strict=False):
            if isinstance(before, nn.GELU):
                assert isinstance(layer, nn.Linear)
                rows = gelu_linear(rows, layer)
            elif not isinstance(layer, nn.GELU):
                rows = layer(rows)
        logits = self.last_layer(F.normalize(rows, dim=-1))
        return logits.unflatten(0, features.shape[:-1])


def _hidden_layer(in_dim: int, out_dim: int, batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm1d(out_dim)] if batch_norm else []
    return [nn.Linear(in_dim, out_dim), *norm, nn.GELU()]
