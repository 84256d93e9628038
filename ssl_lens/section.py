"""What every section of a recipe is, and the kinds of values in it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Auto: TypeAlias = Literal["auto"]
Count: TypeAlias = Annotated[int, Field(ge=1, le=10**9)]
Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]


def _low_end_first(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)} is not a range; write its low end first")
    return ends


Range: TypeAlias = Annotated[tuple[NonNegative, NonNegative], AfterValidator(_low_end_first)]
SignedRange: TypeAlias = Annotated[tuple[float, float], AfterValidator(_low_end_first)]


class Section(BaseModel):
    """Frozen, strict in types, closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
