"""What is given to a backbone, made in advance."""

import threading
from collections.abc import Iterator

import pytest

from ssl_lens.errors import InputError
from ssl_lens.representation.inputs import in_advance


def test_the_next_item_is_made_while_one_is_used() -> None:
    made: list[int] = []
    second_is_made = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            if number == 1:
                second_is_made.set()
            yield number

    items = in_advance(numbers())
    assert next(items) == 0
    assert second_is_made.wait(timeout=60)
    assert [*items] == [1, 2]
    assert made == [0, 1, 2]


def test_what_making_an_item_raises_is_raised_in_its_turn() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise InputError("image 2 cannot be read")

    items = in_advance(numbers())
    assert next(items) == 1
    with pytest.raises(InputError, match="image 2"):
        next(items)
