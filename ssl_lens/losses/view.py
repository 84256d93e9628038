"""The view loss of DINO."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_lens.errors import InputError
from ssl_lens.losses.center import Targets, at_least_float32


class ViewLoss(nn.Module):
    """Cross-entropy between the teacher's and the student's assignment of different views of one image.

    For teacher view t, student view s != t, image b:
        H(p_t[b], softmax(student[s, b] / student_temp)),   p = targets(teacher)
    with p = softmax((teacher - center) / teacher_temp) under `Centering`; averaged over b, then over pairs.

    The first G student views are the teacher's G views. The centre used is the one before this step: call
    `update_center` afterwards.

    Where the student saw mixtures of images, `mixing[s, b, c]` is the part of image b in its mixture c, and for each
    pair and image the cross-entropy is that to all mixtures, weighed by these parts.

    Shapes: student [V, B, K], teacher [G, B, K], mixing [V, B, B] or None; returns a scalar in nats. Computed in
        float32 or wider.
    Raises: InputError if no pair s != t exists or K differs from the centre's.
    Source: DINO (Caron et al. 2021), eq. 3; mixing: EsViT (Li et al. 2021), DINOLoss. Differs: any number of global
    and local views.
    """

    def __init__(self, centering: Targets, student_temp: float = 0.1) -> None:
        super().__init__()
        self.centering = centering
        self.student_temp = student_temp

    def forward(
        self,
        student: torch.Tensor,
        teacher: torch.Tensor,
        *,
        teacher_temp: float,
        mixing: torch.Tensor | None = None,
    ) -> torch.Tensor:
        n_pairs = count_pairs(n_student=len(student), n_teacher=len(teacher))
        with torch.autocast(student.device.type, enabled=False):
            targets = self.centering.targets(teacher, teacher_temp)
            return checkpoint(
                self._mean, student, targets, mixing, n_pairs, use_reentrant=False, preserve_rng_state=False
            )

    def _mean(
        self, student: torch.Tensor, targets: torch.Tensor, mixing: torch.Tensor | None, n_pairs: int
    ) -> torch.Tensor:
        """The mean over images and pairs."""
        log_p = (at_least_float32(student) / self.student_temp).log_softmax(dim=-1)
        if mixing is not None:
            log_p = mixing.to(log_p.dtype) @ log_p
        cross_entropy = -(targets.flatten(1) @ log_p.flatten(1).T) / log_p.shape[1]  # [G, V], mean over images
        same_view = torch.eye(*cross_entropy.shape, dtype=torch.bool, device=cross_entropy.device)
        return cross_entropy.masked_fill(same_view, 0).sum() / n_pairs

    def update_center(self, teacher: torch.Tensor) -> None:
        """Moves the centre towards these teacher logits [G, B, K] of all ranks."""
        self.centering.update([teacher])


def count_pairs(n_student: int, n_teacher: int) -> int:
    """Number of pairs of a teacher view and a different student view.

    Raises: InputError if there is none.
    """
    assert n_student >= n_teacher, "the student sees every view that the teacher sees"
    n_pairs = n_teacher * (n_student - 1)
    if n_pairs < 1:
        raise InputError(
            f"{n_student} view(s) of an image leave no pair to compare; use two global crops or a local one"
        )
    return n_pairs
