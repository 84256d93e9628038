"""What becomes of unusable images: one rule, one file."""

import pytest

from ssl_lens.data.quarantine import (
    Unusable,
    add_to_quarantine,
    judge_stream,
    judge_unusable,
    read_quarantine,
    write_quarantine,
)
from ssl_lens.errors import InputError

TWO = (Unusable("a/0.npy", "constant: every pixel is 3"), Unusable("b.tar#x", "no image"))


def test_one_in_a_hundred_is_left_out_and_more_are_refused(tmp_path):
    assert judge_unusable(TWO, 200, "in DIR", tmp_path / "q.tsv") == (
        "2 of 200 images in DIR are unusable, such as a/0.npy: constant: every pixel is 3; all are listed in "
        f"{tmp_path}/q.tsv; they are left out"
    )
    with pytest.raises(
        InputError, match="^2 of 199 images in DIR are unusable, such as a/0.npy: constant: every pixel"
    ):
        judge_unusable(TWO, 199, "in DIR")


def test_a_stream_is_judged_once_enough_was_seen():
    eleven = [Unusable(f"0.tar#{i:06d}", "no image") for i in range(11)]
    judge_stream(eleven, 999)
    judge_stream(eleven[:10], 1000)
    judge_stream([], 10**6)
    with pytest.raises(InputError, match="11 of 1000 images read from the shards .*; repair or remove them, .* 1% are"):
        judge_stream(eleven, 1000)


def test_the_file_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "run" / "quarantine.tsv"
    assert read_quarantine(file) == ()
    write_quarantine(file, TWO)
    add_to_quarantine(file, Unusable("c", "reason, with words"))
    assert read_quarantine(file) == (*TWO, ("c", "reason, with words"))
    assert file.read_text().splitlines()[0] == "a/0.npy\tconstant: every pixel is 3"
    write_quarantine(file, TWO[1:])
    assert read_quarantine(file) == TWO[1:]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for write in (lambda path: write_quarantine(path, TWO[:1]), lambda path: add_to_quarantine(path, TWO[0])):
        with pytest.raises(InputError, match="cannot list 1 unusable images in .*/file/q.tsv: .*; choose a folder"):
            write(tmp_path / "file" / "q.tsv")
