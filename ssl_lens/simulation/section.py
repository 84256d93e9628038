"""The section `simulate` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ssl_lens.section import Count, Positive, Section
from ssl_lens.simulation.parameters import Model as Telescope
from ssl_lens.simulation.parameters import Parameters


class Simulate(Section):
    """The simulated set that stands in where a recipe names no images.

    image_size, pixel_scale_arcsec: null for the model's own. set: ranges of what is drawn, such as {shear: [0, 0.1]}.
    """

    count_per_class: Count = 1000
    model: Telescope = "model_i"
    image_size: Annotated[int, Field(ge=16)] | None = 64
    pixel_scale_arcsec: Positive | None = 0.1
    set: Parameters = Parameters()
    seed: Annotated[int, Field(ge=0)] = 1
