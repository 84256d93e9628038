"""The reference's augmentations, against torchvision's definitions."""

import pytest
import torch
import torchvision.transforms.functional as reference

from ssl_lens.views import colour_jitter
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.policy import ViewKind
from ssl_lens.views.randomness import image_keys

QUIET = {"jitter_probability": 0.0, "grey_probability": 0.0, "blur_probability": (0.0,) * 3}


def pictures(channels: int = 3) -> torch.Tensor:
    images = torch.rand(30, channels, 12, 12, generator=torch.Generator().manual_seed(0))
    images[0] = 0.5  # grey has no hue
    images[1] = torch.tensor([1.0, 0.0, 0.0])[:channels, None, None]
    images[2, 0] = images[2, -1]  # ties between channels
    return images


@pytest.mark.parametrize(
    ("ours", "theirs", "strengths"),
    [
        (colour_jitter.adjust_brightness_, reference.adjust_brightness, (0.6, 1.0, 1.4)),
        (colour_jitter.adjust_contrast_, reference.adjust_contrast, (0.6, 1.0, 1.4)),
        (colour_jitter.adjust_saturation_, reference.adjust_saturation, (0.8, 1.0, 1.2)),
        (colour_jitter.adjust_hue_, reference.adjust_hue, (-0.5, -0.1, 0.0, 0.1, 0.3, 0.5)),
    ],
)
def test_adjustments_equal_torchvisions(ours, theirs, strengths):
    for strength in strengths:
        images = pictures()
        ours(images, torch.full((30, 1, 1, 1), strength))
        assert torch.allclose(images, theirs(pictures(), strength), atol=3e-6)


def test_one_channel_contrast_equals_torchvisions():
    images = pictures(1)
    colour_jitter.adjust_contrast_(images, torch.full((30, 1, 1, 1), 1.3))
    assert torch.allclose(images, reference.adjust_contrast(pictures(1), 1.3), atol=1e-6)


def test_every_image_has_its_own_factor():
    factors = torch.linspace(0.6, 1.4, 30)
    images = pictures()
    colour_jitter.adjust_brightness_(images, factors[:, None, None, None])
    for image, picture, factor in zip(images, pictures(), factors.tolist(), strict=True):
        assert torch.allclose(image, reference.adjust_brightness(picture, factor), atol=1e-6)


def test_grey_and_solarize_equal_torchvisions():
    assert torch.allclose(colour_jitter.to_grey(pictures()), reference.rgb_to_grayscale(pictures()), atol=1e-6)
    assert torch.equal(colour_jitter.solarize(pictures()), reference.solarize(pictures(), 0.5))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_black_and_white_are_undone_and_nothing_else_happens_when_all_is_off(channels):
    views = torch.rand(2, 15, channels, 12, 12) * 4 - 1.5
    jitter = ColourJitter(black=(-1.5,), white=(2.5,), **QUIET, solarize_probability=(0.0,) * 3)
    keys = image_keys(0, 0, torch.arange(30)).view(2, 15)
    result = jitter(views.clone(), keys, [ViewKind.FIRST_GLOBAL, ViewKind.OTHER_GLOBAL])
    assert torch.allclose(result, views, atol=2e-6)


def test_effects_come_with_the_probability_of_their_kind_of_view():
    views = torch.rand(3, 500, 1, 13, 13)
    keys = image_keys(0, 0, torch.arange(1500)).view(3, 500)
    kinds = [ViewKind.FIRST_GLOBAL, ViewKind.OTHER_GLOBAL, ViewKind.LOCAL]

    def share(jitter: ColourJitter) -> torch.Tensor:
        changed = (jitter(views.clone(), keys, kinds) - views).abs().amax((2, 3, 4)) > 1e-3
        return changed.float().mean(1)

    shown = {"black": (0.0,), "white": (1.0,)}
    blurred = share(
        ColourJitter(**shown, **QUIET | {"blur_probability": (1.0, 0.1, 0.5)}, solarize_probability=(0.0,) * 3)
    )
    solarized = share(ColourJitter(**shown, **QUIET, solarize_probability=(0.0, 0.2, 0.0)))
    # the narrowest blurs, sigma near 0.1 px, change nothing
    assert torch.allclose(blurred, torch.tensor([0.95, 0.1, 0.5]), atol=0.08)
    assert torch.allclose(solarized, torch.tensor([0.0, 0.2, 0.0]), atol=0.07)
    jittered = share(ColourJitter(**shown, **QUIET | {"jitter_probability": 0.8}, solarize_probability=(0.0,) * 3))
    assert torch.allclose(jittered, torch.tensor([0.8, 0.8, 0.8]), atol=0.07)


def test_grey_takes_colour_from_a_fifth_of_the_views():
    jitter = ColourJitter(
        black=(0.0,), white=(1.0,), **QUIET | {"grey_probability": 0.2}, solarize_probability=(0.0,) * 3
    )
    keys = image_keys(0, 0, torch.arange(1000)).view(1, 1000)
    result = jitter(torch.rand(1, 1000, 3, 4, 4), keys, [ViewKind.LOCAL])
    assert abs(((result.amax(2) - result.amin(2)).amax((2, 3)) < 1e-6).float().mean() - 0.2) < 0.065
