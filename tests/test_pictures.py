"""One convention for all pictures that are drawn of images."""

import numpy as np
import pytest

from ssl_lens.data.formats.reader import is_picture
from ssl_lens.errors import InputError
from ssl_lens.pictures import drawable

IMAGE = np.arange(2 * 5 * 3).reshape(5, 2, 3)  # five channels, two rows


@pytest.mark.parametrize(
    ("channels", "picture", "rgb", "expected"),
    [
        (1, True, None, [0]),
        (2, False, None, [0]),
        (3, True, None, [0, 1, 2]),
        (3, False, None, [2, 1, 0]),
        (4, False, None, [3, 2, 0]),
        (5, False, None, [4, 2, 0]),
        (4, True, None, [0, 1, 2]),
        (5, False, (1, 1, 4), [1, 1, 4]),
        (1, False, (0, 0, 0), [0, 0, 0]),
    ],
)
def test_channels_and_rows(channels, picture, rgb, expected):
    drawn = drawable(IMAGE[:channels], picture=picture, rgb=rgb)
    assert (drawn == IMAGE[expected][:, :: 1 if picture else -1]).all()


@pytest.mark.parametrize("rgb", [(0, 1, 5), (-1, 0, 1)])
def test_channels_that_there_are_not(rgb):
    with pytest.raises(InputError, match=r"^rgb=(0 1 5|-1 0 1) names a channel .* do not have; give three of 0 to 4$"):
        drawable(IMAGE, picture=False, rgb=rgb)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.PNG", True),
        ("b.jpeg", True),
        ("b.tif#000003", True),
        ("b.fits", False),
        ("b.npy#000012", False),
        ("lens/100002", False),
    ],
)
def test_the_name_of_an_image_says_what_it_comes_from(name, expected):
    assert is_picture(name) == expected
