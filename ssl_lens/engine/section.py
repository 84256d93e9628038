"""The section `optim` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssl_lens.section import Auto, Count, NonNegative, Positive, Section


class Optim(Section):
    """AdamW and its schedules; batch_size counts images over all processes."""

    epochs: Count = 100
    batch_size: Annotated[int, Field(ge=2)] = 256
    accumulate: Count = 1
    lr: Auto | Positive = "auto"
    min_lr: NonNegative = 1e-6
    warmup_epochs: Annotated[int, Field(ge=0)] = 10
    weight_decay: NonNegative = 0.04
    weight_decay_end: NonNegative = 0.4
    clip_norm: Positive | None = 3.0
    precision: Literal["no", "bf16", "fp16"] = "no"

    @model_validator(mode="after")
    def _warmup_ends(self) -> Optim:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} is not below epochs={self.epochs}; "
                "set optim.warmup_epochs below optim.epochs"
            )
        return self
