"""Mixtures of the images of a batch, and what part each image has in them."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_lens.transfer import sent
from ssl_lens.views.multicrop import Views


def mix_views(views: Views, alpha: float) -> tuple[Views, Tensor]:
    """Every view of an image mixed with the same view of the image as far from the batch's end as it from its start.

    mixture c of view v = share * image c + (1 - share) * image B-1-c; each view has its share from Beta(alpha, alpha).

    Returns: the mixtures, and the part [V, B, B] of image b (second axis) in mixture c (third axis).
    Source: mixup (Zhang et al. 2018) in the pairing of timm's batch mode. Differs: a share for every view.
    """
    distribution = torch.distributions.Beta(torch.tensor(alpha, dtype=torch.float64), alpha)
    mixed, parts = [], []
    for crops in views.all():
        drawn = distribution.sample((len(crops),))  # on the CPU, the same on every device
        shares = sent(drawn.to(crops.dtype), crops.device)
        weights = shares.view(-1, *[1] * (crops.ndim - 1))
        mixed.append(weights * crops + (1 - weights) * crops.flip(1))
        same = torch.eye(crops.shape[1], device=crops.device, dtype=crops.dtype)
        parts.append(shares.view(-1, 1, 1) * same + (1 - shares.view(-1, 1, 1)) * same.flip(0))
    return Views(mixed[0], tuple(mixed[1:])), torch.cat(parts)
