"""DINO and EsViT: a student learns to say of each view what its slowly following teacher says of others."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from timm.layers.drop import DropPath
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.losses.center import Centering, SinkhornKnopp, Targets
from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.collapse import DINOAdvisor, teacher_statistics
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.method import Choice, Method, MethodOptions, Panel
from ssl_lens.methods.mixup import mix_views
from ssl_lens.methods.network import Network, Output
from ssl_lens.schedules import cosine, teacher_temperature
from ssl_lens.section import Auto, Count, NonNegative, Positive, Probability
from ssl_lens.views.multicrop import Views

LARGE_SET = 100_000  # images; from here on the reference's out_dim of 65,536 pays


class DINOOptions(MethodOptions):
    """The section `method` of a recipe for DINO (view loss alone) and EsViT (view and region loss).

    total = view_weight * view loss + region_weight * region loss; a loss of weight 0 is not computed and has no head.
    center_momentum: of `centering=center`. warmup_teacher_temp: of the first epoch, growing to teacher_temp over
    warmup_teacher_temp_epochs. mixup: alpha of the Beta distribution by which the student's views of two images are
    mixed, 0 for none; of the view loss alone. out_dim: prototypes K. freeze_last_layer_epochs: during which the heads'
    last layers stand still. ema_momentum: of the teacher at the start; it grows to 1.
    """

    name: Literal["dino"] = "dino"
    view_weight: NonNegative = 0.5
    region_weight: NonNegative = 0.5
    centering: Literal["center", "sinkhorn"] = "center"
    center_momentum: Probability = 0.9
    student_temp: Positive = 0.1
    teacher_temp: Positive = 0.04
    warmup_teacher_temp: Positive | None = None
    warmup_teacher_temp_epochs: Annotated[int, Field(ge=0)] = 0
    mixup: NonNegative = 0.0
    out_dim: Auto | Annotated[int, Field(ge=2)] = "auto"
    head_hidden_dim: Count = 2048
    head_bottleneck_dim: Count = 256
    head_batch_norm: bool = False
    norm_last_layer: bool = False
    freeze_last_layer_epochs: Annotated[int, Field(ge=0)] = 1
    ema_momentum: Auto | Probability = "auto"

    @model_validator(mode="after")
    def _something_to_learn(self) -> DINOOptions:
        if self.view_weight == 0 and self.region_weight == 0:
            raise ValueError("view_weight and region_weight are both 0; set one above 0")
        return self

    @model_validator(mode="after")
    def _nothing_idle(self) -> DINOOptions:
        if self.center_momentum != 0.9 and self.centering == "sinkhorn":
            raise ValueError(
                f"center_momentum={self.center_momentum} does nothing with centering=sinkhorn, which has no centre; "
                "set centering=center or leave center_momentum out"
            )
        if (self.warmup_teacher_temp is None) != (self.warmup_teacher_temp_epochs == 0):
            raise ValueError(
                f"warmup_teacher_temp={self.warmup_teacher_temp} and "
                f"warmup_teacher_temp_epochs={self.warmup_teacher_temp_epochs} only work together; set both or neither"
            )
        if self.mixup and self.region_weight:
            raise ValueError(
                f"mixup={self.mixup} is of the view loss alone, whose targets can be mixed; "
                "set region_weight=0 or mixup=0"
            )
        return self

    def choices(self, *, n_images: int, steps: int) -> dict[str, Choice]:
        """What `auto` becomes in a run of `steps` on `n_images`.

        out_dim: 4,096, or the reference's 65,536 from 100,000 images. ema_momentum: the reference's 0.996, lower in
        short runs so that the teacher's memory, 1 / (1 - momentum) steps, is at most a twentieth of the run.
        """
        return {
            "out_dim": Choice(4096 if n_images < LARGE_SET else 65536, f"{n_images} images"),
            "ema_momentum": Choice(min(0.996, max(0.5, 1 - 20 / max(steps, 1))), f"{steps} steps"),
        }

    @property
    def without_regions(self) -> str | None:
        return "region_weight=0" if self.region_weight else None


class DINOValues(NamedTuple):
    """The values of one step."""

    ema_momentum: float
    teacher_temp: float
    freeze_last_layer: bool


class DINOSchedule:
    """The reference's schedules: the teacher's momentum by step; its temperature and the freeze by epoch.

    Source: DINO (Caron et al. 2021), train_dino.
    """

    def __init__(self, options: DINOOptions, epochs: int, steps_per_epoch: int) -> None:
        assert options.ema_momentum != "auto", "resolve auto values first"
        warm = options.teacher_temp if options.warmup_teacher_temp is None else options.warmup_teacher_temp
        self.steps_per_epoch = steps_per_epoch
        self.freeze_last_layer_epochs = options.freeze_last_layer_epochs
        self.ema_momentum: np.ndarray = cosine(options.ema_momentum, 1.0, epochs, steps_per_epoch)
        self.teacher_temp: np.ndarray = teacher_temperature(
            warm, options.teacher_temp, options.warmup_teacher_temp_epochs, epochs
        )

    def at(self, step: int) -> DINOValues:
        """The values of step 0 <= step < epochs * steps_per_epoch."""
        epoch = step // self.steps_per_epoch
        return DINOValues(
            ema_momentum=float(self.ema_momentum[step]),
            teacher_temp=float(self.teacher_temp[epoch]),
            freeze_last_layer=epoch < self.freeze_last_layer_epochs,
        )


class DINO(Method):
    """DINO's view loss, EsViT's region loss, or both, between a student and its teacher.

    Args:
        backbone: of the student; the teacher begins as its copy.
        options: with no value left at `auto`.

    Source: DINO (Caron et al. 2021); EsViT (Li et al. 2021), whose code weighs both losses by 1/2. Differs: the centre
    moves after the optimiser's step (the loss has read the old centre either way).
    """

    Options = DINOOptions
    options: DINOOptions

    def __init__(self, backbone: Encoder, options: DINOOptions) -> None:
        super().__init__(backbone, options)
        assert options.out_dim != "auto", "resolve auto values first"
        self.out_dim = options.out_dim
        region_head = self._head(backbone.embed_dim) if options.region_weight > 0 else None
        view_head = self._head(backbone.embed_dim) if options.view_weight > 0 else None
        self.student = Network(backbone, view_head, region_head)
        self.teacher = make_teacher(self.student)
        self.view_loss = ViewLoss(self._centering(), options.student_temp) if view_head else None
        self.region_loss = RegionLoss(self._centering(), options.student_temp) if region_head else None
        self._targets: list[Output] = []  # the teacher's, of this step's micro-batches
        self._advisor = DINOAdvisor(options)

    def _head(self, embed_dim: int) -> ProjectionHead:
        options = self.options
        return ProjectionHead(
            embed_dim,
            self.out_dim,
            hidden_dim=options.head_hidden_dim,
            bottleneck_dim=options.head_bottleneck_dim,
            norm_last_layer=options.norm_last_layer,
            batch_norm=options.head_batch_norm,
        )

    def _centering(self) -> Targets:
        if self.options.centering == "sinkhorn":
            return SinkhornKnopp()
        return Centering(self.out_dim, self.options.center_momentum)

    @property
    def trained(self) -> nn.Module:
        return self.student

    @property
    def backbone(self) -> Encoder:
        return self.teacher.backbone

    @property
    def panels(self) -> tuple[Panel, ...]:
        uniform = math.log(self.out_dim)  # loss and entropy of uniform targets
        return (
            Panel("loss (nats)", ("loss", "view_loss", "region_loss"), uniform),
            *(
                Panel(
                    f"teacher entropy of {kind}s (nats)", (f"{kind}_teacher_entropy", f"{kind}_mean_entropy"), uniform
                )
                for kind in ("view", "region")
            ),
        )

    def schedule(self, epochs: int, steps_per_epoch: int) -> DINOSchedule:
        return DINOSchedule(self.options, epochs, steps_per_epoch)

    def start_step(self) -> None:
        self._targets = []

    def losses(self, views: Views, now: DINOValues) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.teacher([views.global_crops])
        self._targets.append(target)
        mixing = None
        if self.options.mixup:
            views, mixing = mix_views(views, self.options.mixup)
        return self.compare(self.student(views.all()), target, now.teacher_temp, mixing)

    def compare(
        self, student: Output, target: Output, teacher_temp: float, mixing: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The losses between what the student says of all views and the teacher of the global ones."""
        losses, weighed = {}, []
        if self.view_loss is not None:
            view = self.view_loss(student.view_logits, target.view_logits, teacher_temp=teacher_temp, mixing=mixing)
            losses["view_loss"] = view
            weighed.append(self.options.view_weight * view)
        if self.region_loss is not None:
            region = self.region_loss(
                student.region_logits,
                student.regions,
                target.region_logits,
                target.regions,
                teacher_temp=teacher_temp,
            )
            losses["region_loss"] = region
            weighed.append(self.options.region_weight * region)
        return {"total": sum(weighed[1:], start=weighed[0]), **losses}

    def before_step(self, now: DINOValues) -> None:
        if now.freeze_last_layer:
            freeze_last_layer(self.student)

    def after_step(self, now: DINOValues) -> None:
        self.update_centers(self._targets)
        update_teacher(self.teacher, self.student, now.ema_momentum)

    def update_centers(self, targets: Sequence[Output]) -> None:
        """Moves the centres by outputs of the teacher; several (gradient accumulation) count as one batch."""
        if self.view_loss is not None:
            self.view_loss.update_center(_view_logits(targets))
        if self.region_loss is not None:
            self.region_loss.update_center(_region_logits(targets))

    def features(self) -> Tensor:
        return torch.cat([target.view_features.detach().flatten(0, -2) for target in self._targets])

    def metrics(self, now: DINOValues) -> dict[str, float]:
        """How the teacher spreads views, and regions, over the prototypes: `teacher_statistics` of each loss's targets,
        by names that begin with `view_` or `region_`."""
        targets: dict[str, Tensor] = {}
        if self.view_loss is not None:
            targets["view"] = self.view_loss.centering.targets(_view_logits(self._targets), now.teacher_temp)
        if self.region_loss is not None:
            rows = torch.cat([logits.flatten(0, -2) for logits in _region_logits(self._targets)])
            targets["region"] = self.region_loss.centering.targets(rows, now.teacher_temp)
        return {
            f"{kind}_{name}": value
            for kind, probabilities in targets.items()
            for name, value in teacher_statistics(probabilities).items()
        }

    def advice(self, metrics: dict[str, float]) -> list[str]:
        return self._advisor.advise(metrics)

    def _features(self, crops: Tensor) -> Tensor:
        """What the student's losses are made of: logits [V, B, K], or region logits as [V, B, N * K]."""
        output = self.student([crops])
        if output.view_logits is not None:
            return output.view_logits
        assert output.region_logits is not None
        return output.region_logits[0].flatten(2)


def _view_logits(targets: Sequence[Output]) -> Tensor:
    return torch.cat([target.view_logits for target in targets if target.view_logits is not None], dim=1)


def _region_logits(targets: Sequence[Output]) -> list[Tensor]:
    return [logits for target in targets for logits in target.region_logits or ()]


def make_teacher(student: Network) -> Network:
    """An exact copy of the student that takes no gradient and drops no paths.

    It is left in training mode, and must stay there: its batch norms use and collect statistics of their own.
    Source: EsViT (Li et al. 2021), train_esvit.
    """
    teacher = copy.deepcopy(student).train().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return teacher


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum * teacher + (1 - momentum) * student, over parameters; buffers are left alone.

    Args:
        momentum: at 1 the teacher stands still.

    Source: DINO (Caron et al. 2021), section 3.1.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)


def freeze_last_layer(network: nn.Module) -> None:
    """Drops the gradients of every last layer, so that the optimiser neither steps nor decays it.

    Call it after clipping and before the step. Zero gradients would not do: weight decay would still act.
    Source: DINO (Caron et al. 2021), utils.cancel_gradients_last_layer.
    """
    for name, parameter in network.named_parameters():
        if "last_layer" in name:
            parameter.grad = None
