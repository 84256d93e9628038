"""What a run watches besides its loss: is the teacher collapsing, is the representation rich, does a probe improve?"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_lens.data.images import ImageSet
from ssl_lens.data.splits import stratified_split
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.neighbours import knn_scores

PROBE_NEIGHBOURS = 20
PROBE_TEST_FRACTION = 0.2


@torch.no_grad()
def teacher_statistics(probabilities: Tensor) -> dict[str, float]:
    """How the teacher spreads images over prototypes, in nats, over all ranks.

    Args:
        probabilities: the teacher's targets [..., K].

    Returns: `teacher_entropy`, the mean entropy of one image's target (0: one-hot, ln K: uniform);
        `mean_entropy`, the entropy of the mean target (0: all images share one prototype);
        `information`, their difference over ln K (0: the target says nothing about the image).
    """
    probabilities = probabilities.flatten(0, -2).double()
    n_prototypes = probabilities.shape[-1]
    sums = torch.cat(
        [probabilities.sum(0), _entropy(probabilities).sum().view(1), probabilities.new_ones(1) * len(probabilities)]
    )
    if dist.is_initialized():
        dist.all_reduce(sums)
    mean, entropy = sums[:-2] / sums[-1], sums[-2] / sums[-1]
    mean_entropy = _entropy(mean)
    return {
        "teacher_entropy": entropy.item(),
        "mean_entropy": mean_entropy.item(),
        "information": ((mean_entropy - entropy) / math.log(n_prototypes)).item(),
    }


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
    singular = torch.linalg.svdvals(features)
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return {
        "feature_std": (normalised.std(0).mean() * math.sqrt(features.shape[1])).item(),
        "rankme": torch.exp(-(shares * shares.log()).sum()).item(),
    }


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


class FeatureWindow:
    """The newest teacher features, enough of them for `feature_statistics`."""

    def __init__(self, capacity: int = 1024) -> None:
        self.capacity = capacity
        self._features: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Takes features [..., D]."""
        self._features.append(features.detach().flatten(0, -2).float())
        while sum(map(len, self._features[1:])) >= self.capacity:
            self._features.pop(0)

    def all(self) -> Tensor:
        return torch.cat(self._features)[-self.capacity :]


class Advisor:
    """Turns the metrics of a run into plain advice, each piece once.

    Args:
        out_dim: number of prototypes K.
        sinkhorn: whether the targets come from Sinkhorn-Knopp, so that advising it would be idle.
    """

    def __init__(self, out_dim: int, *, sinkhorn: bool) -> None:
        self.uniform_loss = math.log(out_dim)
        self._spread = "lower model.out_dim" if sinkhorn else "set loss.centering=sinkhorn"
        self._given: set[str] = set()

    def advise(self, metrics: dict[str, float]) -> list[str]:
        """New advice for metrics `view_loss, teacher_entropy, mean_entropy, feature_std, rankme`."""
        uniform = self.uniform_loss
        at_uniform = (
            abs(metrics["view_loss"] - uniform) < 0.01 * uniform and metrics["teacher_entropy"] > 0.98 * uniform
        )
        one_prototype = metrics["mean_entropy"] < 0.05 * uniform
        alike = metrics["feature_std"] < 0.02 or metrics["rankme"] < 1.5
        found = [
            at_uniform
            and f"the view loss sits at ln K = {uniform:.3f}: the teacher's targets are uniform and teach nothing; "
            f"lower loss.teacher_temp, set model.head_batch_norm=true, or {self._spread}",
            one_prototype
            and "the teacher gives all images the same prototype (collapse); lower optim.lr, raise loss.teacher_temp, "
            f"or {self._spread}",
            alike
            and "the features hardly differ between images (feature_std below 0.02 or RankMe below 1.5); lower "
            f"optim.lr or loss.view_weight, or {self._spread}",
        ]
        new = [advice for advice in found if advice and advice not in self._given]
        self._given.update(new)
        return new


class OnlineProbe:
    """kNN accuracy of the teacher's backbone on a labelled set of its own, never seen by the losses."""

    def __init__(self, labelled: ImageSet, *, seed: int) -> None:
        self.images, self.labels = labelled.images, labelled.labels
        self.n_classes = len(labelled.classes)
        self.train, self.test = stratified_split(labelled.labels, PROBE_TEST_FRACTION, seed)

    def measure(self, preprocess: nn.Module, backbone: nn.Module) -> dict[str, float]:
        """`probe_knn`: accuracy in [0, 1] of a 20-nearest-neighbour vote on the held-out fifth."""
        frozen = FrozenBackbone(preprocess, copy.deepcopy(backbone))
        features = extract(frozen, self.images, batch_size=256)
        neighbours = min(PROBE_NEIGHBOURS, len(self.train))
        scores = knn_scores(
            features[self.train], self.labels[self.train], features[self.test], k=neighbours, num_classes=self.n_classes
        )
        return {"probe_knn": float(np.mean(scores.argmax(1) == self.labels[self.test]))}
