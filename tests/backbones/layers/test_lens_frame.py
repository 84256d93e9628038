"""The direction of each pixel from the middle of a map."""

import math

import pytest
import torch

from ssl_lens.backbones.layers.lens_frame import direction_cosines


@pytest.mark.parametrize("size", [(6, 6), (5, 8), (7, 7), (1, 1)])
def test_harmonics_of_the_direction_from_the_middle(size):
    height, width = size
    y, x = torch.meshgrid((height - 1) / 2 - torch.arange(height), torch.arange(width) - (width - 1) / 2, indexing="ij")
    angle, centre = torch.atan2(y, x).double(), torch.hypot(x, y) == 0
    cosine, sine = direction_cosines(height, width, 5)
    for k in range(5):
        expected = torch.cos(k * angle), torch.sin(k * angle)
        if k:
            expected = tuple(part.masked_fill(centre, 0) for part in expected)
        torch.testing.assert_close((cosine[k], sine[k]), tuple(part.float() for part in expected), rtol=0, atol=1e-6)


def test_angles_run_counterclockwise_from_the_right():
    cosine, sine = direction_cosines(3, 3, 2)
    assert cosine[1, 1].tolist() == [-1, 0, 1]
    assert sine[1, :, 1].tolist() == [1, 0, -1]
    assert sine[1, 0, 2].item() == pytest.approx(math.sqrt(0.5))
