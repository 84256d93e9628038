import pytest

from ssl_lens.data.formats.limits import check_complete, check_expansion
from ssl_lens.data.formats.sample import UnusableImage


def test_expansion_is_bounded_by_what_is_stored():
    check_expansion(64 << 20, 0, "array")
    check_expansion(100 << 30, 1 << 30, "array")
    with pytest.raises(UnusableImage, match=r"^array declares 67108865 bytes in 0 stored ones; at most 67108864 are"):
        check_expansion((64 << 20) + 1, 0, "array")


def test_declared_data_must_be_there():
    check_complete(10, 10, "array")
    with pytest.raises(UnusableImage, match=r"^array declares 11 bytes but 10 are there: truncated"):
        check_complete(11, 10, "array")
