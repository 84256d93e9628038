"""The picture of the views: written, one tile per view."""

import pytest
import torch
from PIL import Image

from ssl_lens.views.multicrop import Views
from ssl_lens.views.picture import save_views


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_picture_has_a_tile_for_every_view(tmp_path, channels):
    views = Views(torch.randn(2, 3, channels, 32, 32), (torch.randn(4, 3, channels, 16, 16),))
    save_views(views, tmp_path / "views.png", images=torch.randn(3, channels, 40, 40))
    with Image.open(tmp_path / "views.png") as picture:
        assert abs(picture.width / picture.height - 7 / 3) < 0.05
        assert len(picture.convert("L").getcolors(256)) > 10
