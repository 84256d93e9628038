"""The section `views` of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from pydantic import field_validator, model_validator
from torch import Tensor

from ssl_lens.section import Count, Section
from ssl_lens.views.imagenet import ImageNetPolicy
from ssl_lens.views.lens_safe import LensSafePolicy
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.policy import Policy, Sky
from ssl_lens.views.renderings import RenderingsPolicy


class Views(Section):
    """Two global crops and any number of local ones, in pixels of the prepared image.

    policy: the name of one of the policies below, whose options are a section of that name.
    """

    policy: str = "lens_safe"
    global_size: Count = 64
    local_sizes: tuple[Count, ...] = (32,)
    local_counts: tuple[Count, ...] = (6,)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    lens_safe: LensSafePolicy = LensSafePolicy()
    imagenet: ImageNetPolicy = ImageNetPolicy()
    renderings: RenderingsPolicy = RenderingsPolicy()

    @field_validator("policy")
    @classmethod
    def _known_policy(cls, policy: str) -> str:
        names = [name for name, field in cls.model_fields.items() if isinstance(field.default, Policy)]
        if policy not in names:
            raise ValueError(f"{policy!r} is unknown; set {' or '.join(names)}")
        return policy

    @model_validator(mode="after")
    def _one_count_per_size(self) -> Views:
        if len(self.local_sizes) != len(self.local_counts):
            raise ValueError(
                f"local_sizes has {len(self.local_sizes)} entries and local_counts {len(self.local_counts)}; "
                "give one count per size"
            )
        if self.local_sizes and max(self.local_sizes) > self.global_size:
            raise ValueError(
                f"local_sizes={list(self.local_sizes)} exceeds global_size={self.global_size}; "
                "make every local size at most global_size"
            )
        return self

    @property
    def chosen(self) -> Policy:
        """The options of the policy that is named."""
        policy: Policy = getattr(self, self.policy)
        return policy

    @property
    def margin(self) -> int:
        """Pixels beyond the border of the image that views may show."""
        return math.ceil(max(self.chosen.margin_px(size) for size in (self.global_size, *self.local_sizes)))

    def multicrop(
        self, stretch: Callable[[Tensor], Tensor], pixel_range: tuple[float, float], *, sky: Sky, margin: int = 0
    ) -> MultiCrop:
        """What makes the views.

        Args:
            pixel_range: lowest and highest pixel of the images once stretched.
            stretch, sky, margin: as of `MultiCrop`.
        """
        return MultiCrop(
            self.chosen.geometry(),
            flux_effects=self.chosen.flux_effects(),
            stretch=stretch,
            pixel_effects=self.chosen.pixel_effects(pixel_range),
            global_size=self.global_size,
            local_sizes=self.local_sizes,
            local_counts=self.local_counts,
            interpolation=self.interpolation,
            margin=margin,
            sky=sky,
        )
