"""The section `model` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field, model_validator

from ssl_lens.backbones.steerable.groups import Group
from ssl_lens.section import Auto, Count, Section

NetworkName: TypeAlias = Literal[
    "swin_tiny",
    "swin_small",
    "swin_base",
    "swin_micro",
    "cvt_small_lens",
    "cvt_13",
    "cvt_21",
    "cvt_windowed",
    "eqcvt",
    "eqcvt_invariant",
    "steerable_cnn_c4",
    "steerable_cnn_c8",
    "steerable_cnn_d4",
    "steerable_cnn_d8",
    "harmonic_net",
    "canonical_etn",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet_micro",
    "vit_small",
    "beit_base",
    "levit",
    "twins_svt",
    "crossformer_tiny",
    "crossformer_small",
    "regionvit_tiny",
]
NETWORKS_WITH = {  # beginnings of the names of the networks that have an option
    "group": ("eqcvt",),
    "patch_size": ("swin", "vit", "beit", "twins"),
    "window_size": ("swin", "cvt_windowed"),
    "stem_stride": ("resnet",),
    "stages": ("swin", "resnet"),
    "padding": ("swin", "cvt_windowed"),
    "drop_path": ("swin", "cvt_13", "cvt_21", "cvt_windowed", "vit", "beit", "twins", "crossformer", "regionvit"),
}


class Stem(Section):
    """A steerable stem in front of the backbone: `depth` convolutions, then the maximum or mean over the group."""

    group: Group = "C8"
    fields: Count = 8
    depth: Count = 2
    kernel_size: Literal[3, 5, 7] = 5
    downsample: Literal[1, 2] = 1
    pooling: Literal["max", "mean"] = "max"


class Model(Section):
    """The backbone; `ssl-lens models` lists the names.

    What is null is the network's own, as published; what a network does not have is refused. stages: keep the first
    few. image_size: the one size of beit_base, the largest of levit, the size that vit_small's positions are made for;
    auto is views.global_size.
    """

    name: NetworkName = "swin_tiny"
    group: Group | None = None
    image_size: Auto | Count = "auto"
    patch_size: Count | None = None
    window_size: Count | None = None
    stem_stride: Literal[1, 2, 4] | None = None
    stages: Annotated[int, Field(ge=1, le=4)] | None = None
    padding: Literal["clamp", "reference"] | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    stem: Stem | None = None

    @model_validator(mode="after")
    def _options_of_this_network(self) -> Model:
        for option, networks in NETWORKS_WITH.items():
            if getattr(self, option) is not None and not self.name.startswith(networks):
                raise ValueError(
                    f"{option}={getattr(self, option)} is no option of {self.name}, only of "
                    f"{', '.join(name for name in get_args(NetworkName) if name.startswith(networks))}; "
                    f"remove model.{option} or set it to null"
                )
        return self
