"""The region loss of EsViT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_lens.losses.center import NUMBERS_AT_ONCE, Targets, at_least_float32, shifted_softmax
from ssl_lens.losses.view import count_pairs


class RegionLoss(nn.Module):
    """Cross-entropy between each student region and its best-matching teacher region.

    For student view s, teacher view t != s, image b, student region i:
        j = argmax_j cos(regions_s[b, i], regions_t[b, j])
        H(p_t[b, j], softmax(logits_s[b, i] / student_temp)),   p = targets(teacher logits)
    with p = softmax((teacher - center) / teacher_temp) under `Centering`; averaged over i, then b, then pairs: a
    small crop weighs as much as a large one. No gradient flows through the matching.

    The first G student views are the teacher's G views. The centre is that of all teacher regions, matched or not.

    Shapes: logits [V_r, B, N_r, K] and regions [V_r, B, N_r, D], one tensor per resolution; returns a scalar in nats.
        Computed in float32 or wider, some images at a time. For backward logits are kept as they were given, and no
        probabilities.
    Raises: InputError if no pair s != t exists or K differs from the centre's.
    Source: EsViT (Li et al. 2021), eq. 4. Differs: any number of local crops and resolutions.
    """

    def __init__(self, centering: Targets, student_temp: float = 0.1) -> None:
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
        n_pairs = count_pairs(
            n_student=sum(len(logits) for logits in student_logits),
            n_teacher=sum(len(logits) for logits in teacher_logits),
        )
        with torch.autocast(student_logits[0].device.type, enabled=False):
            shift = self.centering.shift(teacher_logits, teacher_temp)
            matches = [_matches(regions, teacher_regions) for regions in student_regions]
            of_an_image = sum(logits[:, 0].numel() for logits in (*student_logits, *teacher_logits))
            n_images, at_once = student_logits[0].shape[1], max(1, NUMBERS_AT_ONCE // of_an_image)
            parts = [part.split(at_once, dim=1) for part in (*student_logits, *matches, *teacher_logits)]
            sums = [
                checkpoint(
                    self._sum, shift, teacher_temp, n_images, *images, use_reentrant=False, preserve_rng_state=False
                )
                for images in zip(*parts, strict=True)
            ]
            return sum(sums[1:], start=sums[0]) / n_pairs

    def _sum(self, shift: torch.Tensor, teacher_temp: float, n_images: int, *parts: torch.Tensor) -> torch.Tensor:
        """What some of `n_images` add to the sum over pairs.

        Args:
            parts: student logits [V_r, b, N_r, K] of each resolution, matches [V_r, b, N_r, G] as of `_matches` of as
                many, then teacher logits.
        """
        count = sum(not part.is_floating_point() for part in parts)
        student_logits, matches, teacher_logits = parts[:count], parts[count : 2 * count], parts[2 * count :]
        targets, first_rows = _rows(teacher_logits, shift, teacher_temp)
        total, view = shift.new_zeros(()), 0
        for logits, tokens in zip(student_logits, matches, strict=True):
            # H is linear in p: summing p over the teacher views leaves one log-softmax per student region.
            rows = (tokens + first_rows).flatten(0, 2)
            log_p = (at_least_float32(logits) / self.student_temp).log_softmax(dim=-1)
            weights = _of_other_views(view, tokens, targets.dtype)
            matched = F.embedding_bag(rows, targets, mode="sum", per_sample_weights=weights).view_as(log_p)
            total = total - (matched * log_p).sum(dim=-1).sum() / (n_images * logits.shape[2])
            view += len(logits)
        return total

    def update_center(self, teacher_logits: Sequence[torch.Tensor]) -> None:
        """Moves the centre towards these teacher logits, each [..., K], of all ranks."""
        self.centering.update(teacher_logits)


@torch.no_grad()
def match_regions(student_regions: torch.Tensor, teacher_regions: torch.Tensor) -> torch.Tensor:
    """For each student region [..., N_s, D] the index [..., N_s] of the teacher region [..., N_t, D] of highest cosine.

    A student region's length does not change which cosine is the highest.
    """
    teacher = F.normalize(at_least_float32(teacher_regions), dim=-1)
    return (at_least_float32(student_regions) @ teacher.mT).argmax(dim=-1)


def _matches(regions: torch.Tensor, teacher_regions: Sequence[torch.Tensor]) -> torch.Tensor:
    """For each student region [V, B, N, D] the best region of each teacher view, [V, B, N, G]."""
    return torch.stack([match_regions(regions, view) for part in teacher_regions for view in part], dim=-1)


@torch.no_grad()
def _rows(
    logits: Sequence[torch.Tensor], shift: torch.Tensor, teacher_temp: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """All targets as rows [R, K], of teacher logits [G_r, b, N_r, K], and the first row [b, 1, G] of image and view."""
    targets = [shifted_softmax(part, shift, teacher_temp).flatten(0, 2) for part in logits]
    first, start = [], 0
    for part in logits:
        end = start + part[..., 0].numel()
        first.append(torch.arange(start, end, part.shape[2], device=part.device).view(part.shape[:2]))
        start = end
    return torch.cat(targets) if len(targets) > 1 else targets[0], torch.cat(first).T[:, None]


def _of_other_views(first: int, tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """1 for each of `tokens` [V, b, N, G] but those of the same view, 0: [V * b * N, G]; None if all are 1."""
    n_views, n_teacher = tokens.shape[0], tokens.shape[3]
    if first >= n_teacher:
        return None
    student, teacher = (torch.arange(n, device=tokens.device) for n in (n_views, n_teacher))
    other = (first + student[:, None] != teacher).to(dtype)
    return other[:, None, None].expand(tokens.shape).flatten(0, 2)
