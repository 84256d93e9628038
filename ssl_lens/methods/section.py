"""The section `loss` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_lens.section import NonNegative, Positive, Probability, Section


class Loss(Section):
    """View-level and region-level self-distillation."""

    view_weight: NonNegative = 0.5
    region_weight: NonNegative = 0.5
    centering: Literal["center", "sinkhorn"] = "center"
    center_momentum: Probability = 0.9
    student_temp: Positive = 0.1
    teacher_temp: Positive = 0.04
    warmup_teacher_temp: Positive = 0.04
    warmup_teacher_temp_epochs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _something_to_learn(self) -> Loss:
        if self.view_weight == 0 and self.region_weight == 0:
            raise ValueError("view_weight and region_weight are both 0; set one above 0")
        return self
