"""Mean and covariance of the patches that a convolution sees: those of its output follow, before it is there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGES = 4  # whose patches are there at once


def patch_moments(x: Tensor, kernel_size: int, padding: int) -> tuple[Tensor, Tensor]:
    """Mean [P] and covariance [P, P], float64, of the patches of P = C k^2 numbers of maps [B, C, H, W].

    Over all pixels of the output of a convolution with `padding` zeros on each side. A filter w has the mean w . mean
    and the variance w . covariance . w there.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        centre = x.detach().mean(dim=(0, 2, 3), keepdim=True)  # any would do: it only keeps digits
        sums, products = [], []
        for part in (F.pad(x, (padding,) * 4) - centre).split(IMAGES):
            patches = F.unfold(part, kernel_size) if kernel_size > 1 else part.flatten(2)
            sums.append(patches.mean(dim=2).double().sum(dim=0))
            products.append((patches @ patches.mT / patches.shape[2]).double().sum(dim=0))
        mean = torch.stack(sums).sum(dim=0) / len(x)
        covariance = torch.stack(products).sum(dim=0) / len(x) - mean[:, None] * mean
        return mean + centre.flatten().repeat_interleave(kernel_size**2), covariance
