import math

import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.evaluation.augment import _right_angle, augment, check_augmentation, rotate


def _images(height: int, width: int) -> torch.Tensor:
    return torch.randn(8, 2, height, width, generator=torch.Generator().manual_seed(0))


def test_right_angles_are_the_eight_symmetries_of_the_square():
    image = _images(6, 6)[:1]
    turned = _right_angle(image.expand(8, -1, -1, -1), torch.arange(8))
    for k in range(4):
        assert torch.equal(turned[k], image[0].rot90(k, (1, 2)))
        assert torch.equal(turned[4 + k], image[0].flip(-1).rot90(k, (1, 2)))
    assert len(torch.unique(turned.flatten(1), dim=0)) == 8


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_by_a_right_angle_moves_pixels_exactly(quarter_turns, mirrored):
    images = _images(7, 7)
    angles = torch.full((8,), quarter_turns * math.pi / 2)
    source = images.flip(-1) if mirrored else images
    turned = rotate(images, angles, torch.full((8,), mirrored))
    torch.testing.assert_close(turned, source.rot90(quarter_turns, (2, 3)), atol=1e-5, rtol=0)


def test_rotation_of_an_oblong_image_keeps_lengths():
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(48) - 23.5, indexing="ij")
    ring = torch.exp(-((torch.hypot(x, y) - 8) ** 2) / 8)[None, None]
    turned = rotate(ring, torch.tensor([0.7]), torch.tensor([False]))
    inside = torch.hypot(x, y) < 15  # outside, the mirrored edge shows
    torch.testing.assert_close(turned[..., inside], ring[..., inside], atol=0.04, rtol=0)  # bilinear


def test_the_draws_decide_and_none_does_nothing():
    images = _images(8, 8)
    draws = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    for kind in ("continuous", "right-angle"):
        turned = augment(images, kind, draws)
        assert torch.equal(augment(images, kind, draws), turned)
        assert not torch.equal(augment(images, kind, 1 - draws), turned)
        torch.testing.assert_close(augment(images[3:5], kind, draws[3:5]), turned[3:5])  # each image by its own draws
    assert augment(images, "none", draws) is images


def test_draws_reach_all_symmetries():
    image = _images(6, 6)[:1].expand(64, -1, -1, -1)
    draws = torch.stack([torch.arange(64) / 64, torch.zeros(64)], dim=1)
    assert len(torch.unique(augment(image, "right-angle", draws).flatten(1), dim=0)) == 8


def test_oblong_images_cannot_turn_by_right_angles():
    with pytest.raises(InputError, match="right-angle needs square images, these are 6x8 px"):
        check_augmentation("right-angle", 6, 8)
    check_augmentation("right-angle", 6, 6)
    check_augmentation("continuous", 6, 8)
