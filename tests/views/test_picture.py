"""The picture of the views: written, one tile per view, each as the image's own format has it."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lens.views.multicrop import Views
from ssl_lens.views.picture import save_views


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_picture_has_a_tile_for_every_view(tmp_path, channels):
    views = Views(torch.randn(2, 3, channels, 32, 32), (torch.randn(4, 3, channels, 16, 16),))
    save_views(views, tmp_path / "views.png", torch.randn(3, channels, 40, 40), pictures=[True, False, True])
    with Image.open(tmp_path / "views.png") as picture:
        assert abs(picture.width / picture.height - 7 / 3) < 0.05
        assert len(picture.convert("L").getcolors(256)) > 10


def test_an_image_is_drawn_by_its_format(tmp_path):
    """The first rows of the first channel are bright: red at the top of a picture, blue at the bottom of an array."""
    image = torch.zeros(2, 3, 40, 40)
    image[:, 0, :10] = 1
    save_views(Views(image[None]), tmp_path / "views.png", image, pictures=[True, False])
    with Image.open(tmp_path / "views.png") as drawn:
        pixels = np.asarray(drawn.convert("RGB")).astype(int)
    rows = np.split(pixels[: len(pixels) // 2 * 2], 2)
    for row, colour, at_the_top in zip(rows, (0, 2), (True, False), strict=True):
        others = [channel for channel in range(3) if channel != colour]
        coloured = np.argwhere((row[..., colour] > 200) & (row[..., others] < 50).all(-1))[:, 0]
        black = np.argwhere((row < 50).all(-1))[:, 0]
        assert len(coloured) > 1000
        assert (np.median(coloured) < np.median(black)) == at_the_top
