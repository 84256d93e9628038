"""The section `model` of a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, InstanceOf, field_validator, model_validator

from ssl_lens.backbones import catalog
from ssl_lens.backbones.steerable.stem import StemOptions
from ssl_lens.errors import InputError
from ssl_lens.section import Section


class Model(Section):
    """The backbone; `ssl-lens models` lists the names and the options of each.

    What is not given is as published, and `image_size`, where a network has it, is that of the global crops.

    stem: a steerable stem in front, such as {group: D4}. weights: those to start from: null for random ones, the
    folder of a run or an export, a file of weights, or pretrained for timm's own of timm/NAME.
    """

    model_config = ConfigDict(extra="allow")  # the network's options, checked below

    name: str = "swin_tiny"
    stem: InstanceOf[StemOptions] | None = None
    weights: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("stem", mode="before")
    @classmethod
    def _options_of_the_stem(cls, stem: Any) -> Any:
        return StemOptions().changed(stem, owner="the stem") if isinstance(stem, dict) else stem

    @model_validator(mode="before")
    @classmethod
    def _options_of_this_network(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("name", ""), str):
            return values
        given = {key: value for key, value in values.items() if key not in cls.model_fields}
        name = values.get("name", cls.model_fields["name"].default)
        foreign = [key for key in given if catalog.is_name(name) and key not in catalog.option_names(name)]
        try:
            chosen = catalog.chosen_options(name, given, others=cls.model_fields)
        except InputError as error:
            if any(key in catalog.all_option_names() for key in foreign):  # left from another network's section
                raise InputError(f"{error}; replace the whole section by model={{name: {name}}}") from None
            raise
        return values | {key: getattr(chosen, key) for key in given}

    @model_validator(mode="after")
    def _weights_of_this_network(self) -> Model:
        if self.weights == "pretrained" and not catalog.has_pretrained_weights(self.name):
            raise ValueError(
                f"weights=pretrained of {self.name} are not known, only those of timm/NAME; give a file or a folder"
            )
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What is given of the network's own options."""
        return dict(self.model_extra or {})
