"""Is the teacher collapsing? What its targets say, and what to do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from ssl_lens.methods.dino import DINOOptions

ROWS_AT_ONCE = 1024  # in float64: as many regions as a large batch has would not fit
# Measured on planted collapses, on healthy runs, and on the untrained networks of recipes and catalogue:
SAYS_NOTHING = 5e-4  # information; collapsed 1e-12 to 4e-4, untrained 0.0015 and more, healthy 0.1 and more
SAYS_LITTLE = 0.02  # information; collapsed with noise by batch norm 0.01, with loss and entropy as near as
SETTLED = 0.01  # of ln K; untrained 0.02 and more: their student has not learned the mean target yet
FEW_PROTOTYPES = math.log(2)  # mean entropy; collapsed 1e-6 to 0.66, healthy 0.85, untrained 2.1 and more
ALIKE_STD, ALIKE_RANKME = 0.05, 2.0  # untrained 0.095 and 3.2 and more, healthy 0.2 and 7, collapsed 0.04 and 1.7


@torch.no_grad()
def teacher_statistics(probabilities: Tensor) -> dict[str, float]:
    """How the teacher spreads images, or regions, over prototypes, in nats, over all ranks.

    Args:
        probabilities: the teacher's targets [..., K].

    Returns: `teacher_entropy`, the mean entropy of one image's target (0: one-hot, ln K: uniform);
        `mean_entropy`, the entropy of the mean target (0: all images share one prototype);
        `information`, their difference over ln K (0: the target says nothing about the image).
    """
    n_prototypes = probabilities.shape[-1]
    sums = probabilities.new_zeros(n_prototypes + 2, dtype=torch.float64)
    for rows in probabilities.flatten(0, -2).split(ROWS_AT_ONCE):
        rows = rows.double()
        sums += torch.cat([rows.sum(0), _entropy(rows).sum().view(1), rows.new_tensor([len(rows)])])
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
    """Turns the metrics of a step into plain advice, which never names what is set already.

    Args:
        options: with no value left at `auto`.
    """

    def __init__(self, options: DINOOptions) -> None:
        assert options.out_dim != "auto", "resolve auto values first"
        self.uniform = math.log(options.out_dim)
        if options.centering == "sinkhorn":
            self._spread = "lower out_dim"
        elif options.center_momentum > 0.9:
            self._spread = "set center_momentum=0.9 or centering=sinkhorn"
        else:
            self._spread = "set centering=sinkhorn"
        self._tell_apart = "" if options.head_batch_norm else "set head_batch_norm=true, "
        self._both = options.view_weight > 0 and options.region_weight > 0

    def advise(self, metrics: dict[str, float]) -> list[str]:
        """Advice for metrics of each loss, `view_loss` or `region_loss` with the `teacher_statistics` of its targets by
        names that begin alike, and for `feature_std` and `rankme`."""
        found = [
            self._advise_on_targets(
                kind,
                loss=metrics[f"{kind}_loss"],
                mean_entropy=metrics[f"{kind}_mean_entropy"],
                information=metrics[f"{kind}_information"],
            )
            for kind in ("view", "region")
            if f"{kind}_loss" in metrics
        ]
        if metrics["feature_std"] < ALIKE_STD or metrics["rankme"] < ALIKE_RANKME:
            weight = " or view_weight" if self._both else ""
            found.append(
                f"the features hardly differ between images (feature_std below {ALIKE_STD:g} or RankMe below "
                f"{ALIKE_RANKME:g}); lower the learning rate{weight}, or {self._spread}"
            )
        return [advice for advice in found if advice is not None]

    def _advise_on_targets(self, kind: str, *, loss: float, mean_entropy: float, information: float) -> str | None:
        """Targets that say nothing, and whether they are one-hot, uniform or between."""
        if mean_entropy < min(FEW_PROTOTYPES, self.uniform / 2):
            return (
                f"the teacher gives all {kind}s the same one or two prototypes (collapse); lower the learning rate, "
                f"{self._tell_apart}raise teacher_temp, or {self._spread}"
            )
        settled = abs(loss - mean_entropy) < SETTLED * self.uniform
        if information > (SAYS_LITTLE if settled else SAYS_NOTHING):
            return None
        if mean_entropy > (1 - SAYS_LITTLE) * self.uniform:
            return (
                f"the teacher's targets of {kind}s are uniform, of entropy ln K = {self.uniform:.3f}, and teach "
                f"nothing; lower teacher_temp, {self._tell_apart}or {self._spread}"
            )
        return (
            f"the teacher gives all {kind}s the same target, of several prototypes, which teaches nothing (collapse); "
            f"lower teacher_temp or the learning rate, {self._tell_apart}or {self._spread}"
        )
