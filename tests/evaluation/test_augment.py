import math

import pytest
import torch

from ssl_lens.evaluation.augment import _right_angle, _rotate, augment


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
    turned = _rotate(images, angles, torch.full((8,), mirrored))
    torch.testing.assert_close(turned, source.rot90(quarter_turns, (2, 3)), atol=1e-5, rtol=0)


def test_rotation_of_an_oblong_image_keeps_lengths():
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(48) - 23.5, indexing="ij")
    ring = torch.exp(-((torch.hypot(x, y) - 8) ** 2) / 8)[None, None]
    turned = _rotate(ring, torch.tensor([0.7]), torch.tensor([False]))
    inside = torch.hypot(x, y) < 15  # outside, the mirrored edge shows
    torch.testing.assert_close(turned[..., inside], ring[..., inside], atol=0.04, rtol=0)  # bilinear


def test_the_generator_decides_and_none_does_nothing():
    images = _images(8, 8)
    for kind in ("continuous", "right-angle"):
        first, again, other = (augment(images, kind, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert augment(images, "none", torch.Generator()) is images
