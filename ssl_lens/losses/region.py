"""The region loss of EsViT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ssl_lens.losses.center import Centering, SinkhornKnopp, at_least_float32
from ssl_lens.losses.view import count_pairs


class RegionLoss(nn.Module):
    """Cross-entropy between each student region and its best-matching teacher region.

    For student view s, teacher view t != s, image b, student region i:
        j = argmax_j cos(regions_s[b, i], regions_t[b, j])
        H(p_t[b, j], softmax(logits_s[b, i] / student_temp)),   p = targets(teacher logits)
    with p = softmax((teacher - center) / teacher_temp) under `Centering`; averaged over i, then b, then pairs: a
    small crop weighs as much as a large one. No gradient flows through the matching.

    The first G student views are the teacher's G views. The centre is that of all teacher regions, matched or not.

    Shapes: logits [B, N_v, K] and regions [B, N_v, D] per view; returns a scalar in nats. Computed in float32 or wider.
    Raises: InputError if no pair s != t exists or K differs from the centre's.
    Source: EsViT (Li et al. 2021), eq. 4. Differs: any number of local crops and resolutions.
    """

    def __init__(self, centering: Centering | SinkhornKnopp, student_temp: float = 0.1) -> None:
        super().__init__()
        self.centering = centering
        self.student_temp = student_temp

    def forward(
        self,
        student_logits: Sequence[torch.Tensor],
        student_regions: Sequence[torch.Tensor],
        teacher_logits: Sequence[torch.Tensor],
        teacher_regions: Sequence[torch.Tensor],
        *,
        teacher_temp: float,
    ) -> torch.Tensor:
        n_pairs = count_pairs(n_student=len(student_logits), n_teacher=len(teacher_logits))
        n_tokens = [logits.shape[1] for logits in teacher_logits]
        with torch.autocast(student_logits[0].device.type, enabled=False):
            # One softmax per teacher region, however many student regions it is matched to.
            targets = self.centering.targets(torch.cat(list(teacher_logits), dim=1), teacher_temp)
            total = student_logits[0].new_zeros((), dtype=targets.dtype)
            for view, (logits, regions) in enumerate(zip(student_logits, student_regions, strict=True)):
                others = [t for t in range(len(n_tokens)) if t != view]
                if not others:
                    continue
                tokens = [sum(n_tokens[:t]) + match_regions(regions, teacher_regions[t]) for t in others]
                # H is linear in p: summing p over the teacher views leaves one log-softmax per student view.
                matched = _sum_tokens(targets, torch.stack(tokens, dim=-1))
                log_p = (at_least_float32(logits) / self.student_temp).log_softmax(dim=-1)
                total = total - (matched * log_p).sum(dim=-1).mean()
            return total / n_pairs

    def update_center(self, teacher_logits: Sequence[torch.Tensor]) -> None:
        """Moves the centre towards these teacher logits, each [B, N_v, K], of all ranks."""
        self.centering.update(teacher_logits)


@torch.no_grad()
def match_regions(student_regions: torch.Tensor, teacher_regions: torch.Tensor) -> torch.Tensor:
    """For each student region [B, N_s, D] the index [B, N_s] of the teacher region [B, N_t, D] of highest cosine."""
    student = F.normalize(at_least_float32(student_regions), dim=-1)
    teacher = F.normalize(at_least_float32(teacher_regions), dim=-1)
    return (student @ teacher.mT).argmax(dim=-1)


def _sum_tokens(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """tokens [B, N, K] taken at index [B, M, T] and summed over T: [B, M, K], in one pass."""
    first_row = torch.arange(len(tokens), device=tokens.device)[:, None, None] * tokens.shape[1]
    rows = F.embedding_bag((first_row + index).flatten(0, 1), tokens.flatten(0, 1), mode="sum")
    return rows.unflatten(0, index.shape[:2])
