"""How rich the features of a run are, measured on those of its newest steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def feature_statistics(features: Tensor) -> dict[str, float]:
    """How rich a set of features is.

    Args:
        features: [N, D], N a few hundred or more for `rankme` to mean something.

    Returns: `feature_std`, the standard deviation over images of the L2-normalised features times √D
        (0: collapsed, 1: spread evenly over the sphere);
        `rankme`, exp of the entropy of the normalised singular values (Garrido et al. 2023), between 1 and min(N, D).
    """
    features = features.double()
    normalised = nn.functional.normalize(features, dim=1)
    return {
        "feature_std": (normalised.std(0).mean() * math.sqrt(features.shape[1])).item(),
        "rankme": rankme(features),
    }


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """Effective rank of features [N, D], between 1 and min(N, D): see `feature_statistics`."""
    singular = torch.linalg.svdvals(features.double())
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return torch.exp(-(shares * shares.log()).sum()).item()


class FeatureWindow:
    """The newest features of the backbone that is kept, enough of them for `feature_statistics`."""

    def __init__(self, capacity: int = 1024) -> None:
        self.capacity = capacity
        self._features: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Takes features [..., D]."""
        self._features.append(features.detach().flatten(0, -2).float())
        while sum(map(len, self._features[1:])) >= self.capacity:
            self._features.pop(0)

    def all(self) -> Tensor:
        """[N, D], N at most `capacity`; [0, 0] before the first."""
        return torch.cat(self._features)[-self.capacity :] if self._features else torch.zeros(0, 0)
