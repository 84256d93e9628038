"""Is the teacher collapsing? What its targets say, and what to do."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor


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


def _entropy(probabilities: Tensor) -> Tensor:
    return torch.special.entr(probabilities).sum(-1)


class DINOAdvisor:
    """Turns the metrics of a step into plain advice.

    Args:
        out_dim: number of prototypes K.
        sinkhorn: whether the targets come from Sinkhorn-Knopp, so that advising it would be pointless.
    """

    def __init__(self, out_dim: int, *, sinkhorn: bool) -> None:
        self.uniform_loss = math.log(out_dim)
        self._spread = "lower out_dim" if sinkhorn else "set centering=sinkhorn"

    def advise(self, metrics: dict[str, float]) -> list[str]:
        """Advice for metrics `view_loss` or `region_loss, teacher_entropy, mean_entropy, feature_std, rankme`."""
        uniform = self.uniform_loss
        kind = "view" if "view_loss" in metrics else "region"
        loss = metrics[f"{kind}_loss"]
        at_uniform = abs(loss - uniform) < 0.01 * uniform and metrics["teacher_entropy"] > 0.98 * uniform
        one_prototype = metrics["mean_entropy"] < 0.05 * uniform
        alike = metrics["feature_std"] < 0.02 or metrics["rankme"] < 1.5
        found = [
            at_uniform
            and f"the {kind} loss sits at ln K = {uniform:.3f}: the teacher's targets are uniform and teach nothing; "
            f"lower teacher_temp, set head_batch_norm=true, or {self._spread}",
            one_prototype
            and "the teacher gives all images the same prototype (collapse); lower the learning rate, raise "
            f"teacher_temp, or {self._spread}",
            alike
            and "the features hardly differ between images (feature_std below 0.02 or RankMe below 1.5); lower "
            f"the learning rate or view_weight, or {self._spread}",
        ]
        return [advice for advice in found if advice]
