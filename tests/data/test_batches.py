"""How many images make a step."""

import pytest

from ssl_lens.data.batches import Plan, fitting_batch_size
from ssl_lens.errors import InputError


@pytest.mark.parametrize(
    ("batch_size", "images", "parts", "expected"),
    [(512, 200, 1, 200), (512, 200, 3, 198), (512, 512, 8, 512), (512, 10**6, 8, 512), (4, 3, 3, 3), (10, 100, 3, 10)],
)
def test_a_batch_shrinks_to_the_set(batch_size, images, parts, expected):
    fitting = fitting_batch_size(batch_size, images, parts)
    assert fitting == expected
    if batch_size > images:
        Plan(fitting, parts, seed=0, rank=0, world_size=1).check(images)


def test_a_set_that_cannot_be_shared_is_refused():
    with pytest.raises(
        InputError, match="^2 images are fewer than the 3 parts .*; give more images, or fewer processes"
    ):
        fitting_batch_size(512, 2, 3)


def test_what_is_not_a_matter_of_the_set_stays_refused():
    with pytest.raises(InputError, match="^batch_size=10 is not a multiple of 3 processes x accumulate=2; .* of 6$"):
        Plan(10, accumulate=2, seed=0, rank=0, world_size=3).check(100)
