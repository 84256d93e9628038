"""The section `views`: the policy that is named makes the views; its options are a section of its name."""

import pytest
import torch
from pydantic import ValidationError

from ssl_lens.errors import InputError
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.imagenet import ImageNetPolicy
from ssl_lens.views.lens_safe import LensSafePolicy
from ssl_lens.views.photometry import Effect, Photometry
from ssl_lens.views.policy import Sky
from ssl_lens.views.section import Views

SKY = Sky(torch.zeros(1), torch.ones(2, 1))


def test_every_option_of_a_policy_arrives() -> None:
    safe = LensSafePolicy(
        max_shift_px=1.0,
        flux_scale=(0.5, 0.6),
        psf_sigma_px=(0.1, 0.2),
        sky_offset=(-0.3, 0.4),
        noise_ratio=(1.5, 2.5),
        probability=0.9,
    )
    made = Views(lens_safe=safe).multicrop(torch.asinh, (0.0, 1.0), sky=SKY, margin=3)
    assert (made.stretch, made.sky, made.margin, made.pixel_effects) == (torch.asinh, SKY, 3, None)
    assert made.geometry == LensSafe(1.0)
    assert made.flux_effects == Photometry(
        flux_scale=Effect(0.5, 0.6, 0.9),
        psf_sigma_px=Effect(0.1, 0.2, 0.9),
        sky_offset=Effect(-0.3, 0.4, 0.9),
        noise_ratio=Effect(1.5, 2.5, 0.9),
    )
    zooming = ImageNetPolicy(global_scale=(0.3, 0.9), local_scale=(0.1, 0.2))
    made = Views(policy="imagenet", imagenet=zooming).multicrop(torch.asinh, (-3.0, 5.0), sky=SKY)
    assert made.geometry == ImageNetCrops((0.3, 0.9), (0.1, 0.2))
    assert made.pixel_effects == ColourJitter(black=(-3.0,), white=(5.0,))
    assert made.flux_effects is None


def test_sizes_and_counts_arrive() -> None:
    views = Views(global_size=16, local_sizes=(8, 4), local_counts=(3, 1), interpolation="bicubic")
    made = views.multicrop(torch.asinh, (0.0, 1.0), sky=SKY)
    assert made.interpolation == "bicubic"
    crops = made(torch.randn(2, 1, 16, 16), torch.arange(2), seed=0, epoch=0)
    assert [tuple(part.shape) for part in crops.all()] == [(2, 2, 1, 16, 16), (3, 2, 1, 8, 8), (1, 2, 1, 4, 4)]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValidationError, match="'global_size' is unknown; set lens_safe or imagenet"):
        Views(policy="global_size")


def test_a_blur_wider_than_a_view_is_refused() -> None:
    LensSafePolicy(psf_sigma_px=(0.0, 5.0)).check(16)
    with pytest.raises(InputError, match=r"psf_sigma_px reaches 5.1 px, too wide a blur for size=16; set it below 5.3"):
        LensSafePolicy(psf_sigma_px=(0.0, 5.1)).check(16)
