"""The section `views` of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from ssl_lens.section import Count, NonNegative, Probability, Range, Section, SignedRange


class LensSafe(Section):
    """Views that keep the pixel scale: rotation, mirror, shift, then what an instrument may do to a view.

    Each photometric effect applies with `probability`, its strength drawn evenly from the range; sky and noise are
    in units of the data set's standard deviation.
    """

    max_shift_px: NonNegative = 4.0
    flux_scale: Range = (0.9, 1.1)
    psf_sigma_px: Range = (0.3, 0.8)
    sky_offset: SignedRange = (-0.1, 0.1)
    noise_std: Range = (0.02, 0.15)
    probability: Probability = 0.5


class ImageNet(Section):
    """Views of the reference (DINO, EsViT): random resized crops and colour jitter."""

    global_scale: Range = (0.4, 1.0)
    local_scale: Range = (0.05, 0.4)


class Views(Section):
    """Two global crops and any number of local ones, in pixels of the prepared image."""

    policy: Literal["lens_safe", "imagenet"] = "lens_safe"
    global_size: Count = 64
    local_sizes: tuple[Count, ...] = (32,)
    local_counts: tuple[Count, ...] = (6,)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    lens_safe: LensSafe = LensSafe()
    imagenet: ImageNet = ImageNet()

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
