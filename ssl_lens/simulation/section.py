"""The section `simulate` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from ssl_lens.section import Count, Positive, Section
from ssl_lens.simulation.parameters import Model as Telescope
from ssl_lens.simulation.parameters import Parameters, Redraw, preset


class Simulate(Section):
    """The simulated set that stands in where a recipe names no images.

    image_size, pixel_scale_arcsec: null for the model's own. as_deeplense: as DeepLense's code makes its images.
    randomised: wide ranges, for images of a telescope or a population that no range describes. set: ranges of what is
    drawn, such as {shear: [0, 0.1]}. renderings: images of each lens, of the same mass and always other noise; redraw:
    what else differs between them.
    """

    count_per_class: Count = 1000
    model: Telescope = "model_i"
    image_size: Annotated[int, Field(ge=16)] | None = 64
    pixel_scale_arcsec: Positive | None = 0.1
    as_deeplense: bool = False
    randomised: bool = False
    set: Annotated[Parameters, Field(validate_default=True)] = Parameters()
    renderings: Count = 1
    redraw: tuple[Redraw, ...] = ("source", "exposure", "lens_light", "psf")
    seed: Annotated[int, Field(ge=0)] = 1

    @field_validator("set")
    @classmethod
    def _preset(cls, given: Parameters, info: ValidationInfo) -> Parameters:
        """Ranges that are given come before those of `as_deeplense` and `randomised`."""
        as_deeplense, randomised = (bool(info.data.get(key)) for key in ("as_deeplense", "randomised"))
        values = preset(as_deeplense=as_deeplense, randomised=randomised)
        return Parameters.model_validate(values | given.model_dump(include=given.model_fields_set))
