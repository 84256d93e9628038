"""What a backbone says of views of a fixed sample of the run's own images; no label is needed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.engine.features import rankme


class Sampled(NamedTuple):
    """Images, or what stands for them, as the backbone takes them.

    Shapes: images [b, ...] as they are; views [2, b, ...] of each.
    """

    images: Tensor
    views: Tensor


class Sample(Protocol):
    """The same images and views whenever they are asked for, in batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sampled]: ...


class SampledViews:
    """Whether a backbone tells images apart and their views not: on the same sample, whenever it is measured.

    Attributes:
        figures: the share that says what features are worth where there are no labels.
    """

    figures = ("view_auc",)

    def __init__(self, sample: Sample) -> None:
        self.sample = sample

    @property
    def trials(self) -> int:
        """How many images there are."""
        return len(self.sample)

    @torch.no_grad()
    def measure(self, backbone: Encoder) -> dict[str, float]:
        """`view_statistics` of the view features."""
        own = copy.deepcopy(backbone).eval()
        images: list[Tensor] = []
        first: list[Tensor] = []
        second: list[Tensor] = []
        for batch in self.sample:
            images.append(own(batch.images).view)
            for kept, view in zip((first, second), batch.views, strict=True):
                kept.append(own(view).view)
        return view_statistics(*(torch.cat(parts).double().cpu() for parts in (images, first, second)))


def view_statistics(images: Tensor, first: Tensor, second: Tensor) -> dict[str, float]:
    """What features say of images as they are and of two views of each, [N, D] all.

    Returns: `sample_rankme`, RankMe of the images (Garrido et al. 2023);
        `alignment`, the mean squared distance of the two views on the unit sphere, and `uniformity`, ln of the mean of
        exp(-2 d^2) over all pairs of images at distances d there, both the lower the better (Wang & Isola 2020);
        `view_auc`, how often a view is nearer, in cosine about the mean of all, to the other view of its image than to
        that of another image (1: always, 0.5: they tell nothing).
    """
    normalised = nn.functional.normalize(images, dim=1)
    one, other = (nn.functional.normalize(views, dim=1) for views in (first, second))
    return {
        "sample_rankme": rankme(images),
        "alignment": (one - other).square().sum(dim=1).mean().item(),
        "uniformity": torch.pdist(normalised).square().mul(-2).exp().mean().log().item(),
        "view_auc": _auc(first, second),
    }


def _auc(first: Tensor, second: Tensor) -> float:
    mean = (first + second).mean(dim=0) / 2
    one, other = (nn.functional.normalize(views - mean, dim=1) for views in (first, second))
    cosine = one @ other.T
    nearer = [_nearer(matrix, cosine.diagonal()[:, None]) for matrix in (cosine, cosine.T)]
    return torch.stack(nearer).mean().item()


def _nearer(cosine: Tensor, own: Tensor) -> Tensor:
    """Share of the other images [N] that are further than the own one; of equals a half."""
    others = len(cosine) - 1
    return ((cosine < own).sum(dim=1) + ((cosine == own).sum(dim=1) - 1) / 2) / others
