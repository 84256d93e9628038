"""What cells mean: what is missing, and what is a number."""

import numpy as np
import pytest

from ssl_lens.data.folders import cells


@pytest.mark.parametrize(
    "cell", ["", " ", "-", "--", "\u2014", "?", "N/A", "n/a", "NA", "#N/A", "null", "NULL", "NaN", "nan", "<NA>", "\\N"]
)
def test_what_stands_for_nothing(cell):
    assert cells.labels(["lens", cell, "nolens"]) == (["lens", None, "nolens"], {cell.strip(): 1})
    found = cells.numbers(["1", cell, "2.5", "3"])
    np.testing.assert_array_equal(found.values, [1, np.nan, 2.5, 3])
    assert found.odd is None


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["0", "1", "-99"], ["0", "1", None]),
        ([0, 1, -999], ["0", "1", None]),
        (["0", "1", "-9999.0"], ["0", "1", None]),
        (["0", "1", "-1"], ["0", "1", None]),
        (["1", "2", "-1"], ["1", "2", None]),
        (["1", "-1"], ["1", "-1"]),  # two classes
        (["0", "-1"], ["0", "-1"]),
        (["0", "-1", "-2"], ["0", "-1", "-2"]),
        ([0.0, 1.0, float("nan")], ["0", "1", None]),  # as pandas writes whole numbers with gaps
        (["01", "1"], ["01", "1"]),
        (["none", "lens"], ["none", "lens"]),  # a class
        ([True, False, None], ["true", "false", None]),
        (["x-99", "-99"], ["x-99", "-99"]),
    ],
)
def test_sentinels_of_classes(given, labels):
    assert cells.labels(given)[0] == labels


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (["0.5", "-99", "2"], [0.5, np.nan, 2]),
        (["0.5", "-99.0", "-999", "2"], [0.5, np.nan, np.nan, 2]),
        (["0.5", "-99", "-2"], [0.5, -99, -2]),  # others are negative
        (["-99", "-99"], [-99, -99]),
        (["0.5", "-1", "2"], [0.5, -1, 2]),
        (["0,5", "1,25", "1"], [0.5, 1.25, 1]),
        (["1.5D3", "2e-3", ".5"], [1500, 0.002, 0.5]),
        (["True", "False"], [1, 0]),
        (["None", "1"], [np.nan, 1]),
    ],
)
def test_numbers(given, values):
    np.testing.assert_array_equal(cells.numbers(given).values, values)


def test_one_cell_that_is_not_a_number_is_named():
    assert cells.numbers(["1", "2", "3?", "4"]).odd == (2, "3?")


@pytest.mark.parametrize("given", [["a", "b"], ["1", "b"], [None, None], ["1,234", "5,678"], ["1_0", "x"]])
def test_what_is_no_column_of_numbers(given):
    """1,234 may be thousands, or a comma for the point."""
    assert cells.numbers(given) is None
