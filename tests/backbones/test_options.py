"""Options: every value is checked against its field, whatever it comes from, and every refusal is one line."""

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from ssl_lens.backbones.options import Count, Counts, Options, Rate, field_names
from ssl_lens.errors import InputError


@dataclass(frozen=True)
class Sample(Options):
    width: Count = 8
    depths: Counts = (2, 2)
    rate: Rate = 0.1
    kind: Literal["thin", "thick"] = "thin"
    stride: Literal[1, 2] = 1
    size: Count | tuple[Count, Count] = 64
    first: Count | None = None
    even: bool = False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "width=0 should be an integer, 1 or more"),
        ({"width": 2.0}, "width=2.0 should be an integer, 1 or more"),
        ({"width": True}, "width=True should be an integer, 1 or more"),
        ({"width": "8"}, "width='8' should be an integer, 1 or more"),
        ({"depths": [2, 0]}, "depths=[2, 0] should be a list, each value an integer, 1 or more"),
        ({"depths": 2}, "depths=2 should be a list, each value an integer, 1 or more"),
        ({"rate": 1}, "rate=1 should be a number, 0 or more and below 1"),
        ({"rate": float("nan")}, "rate=nan should be a number, 0 or more and below 1"),
        ({"kind": "wide"}, "kind='wide' should be 'thin' or 'thick'"),
        ({"stride": True}, "stride=True should be 1 or 2"),
        ({"size": [1, 2, 3]}, "size=[1, 2, 3] should be an integer, 1 or more, or a list of 2, each value an integer"),
        ({"first": 0}, "first=0 should be an integer, 1 or more, or null"),
        ({"even": 1}, "even=1 should be true or false"),
        ({"kind": None}, "kind=None should be 'thin' or 'thick'"),
        ({"widht": 8}, "widht is not an option of sample; the nearest is width"),
        ({"nmae": "x"}, "nmae is not an option of sample; the nearest is name"),
        (
            {"colour": 8},
            "colour is not an option of sample, which has width, depths, rate, kind, stride, size",
        ),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        Sample().changed(values, owner="sample", others=("name",))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_lists_become_tuples_and_integers_floats_where_those_are_meant() -> None:
    changed = Sample().changed({"depths": [1, 2], "rate": 0, "size": [8, 12], "first": 3}, owner="sample")
    assert changed == Sample(depths=(1, 2), rate=0.0, size=(8, 12), first=3)
    assert type(changed.rate) is float
    assert Sample(size=7).size == 7


def test_a_configuration_goes_through_json() -> None:
    sample = Sample(depths=(3,), size=(4, 5), kind="thick")
    assert tuple(sample.config()) == field_names(Sample)
    assert Sample.from_config(json.loads(json.dumps(sample.config()))) == sample
