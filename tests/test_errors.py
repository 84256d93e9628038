"""Errors name what the user wrote."""

from pathlib import Path

import pytest

from ssl_lens.errors import InputError, arguments_named, one_line_errors, renamed

KEYS = {"batch_size": "optim.batch_size", "size": "data.size", "sizes": "data.sizes", "bin": "data.bin"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("batch_size=512 exceeds 200 images", "optim.batch_size=512 exceeds 200 images"),
        ("lower batch_size, or set batch_size.", "lower optim.batch_size, or set optim.batch_size."),
        ("give size=64, or sizes=crop; bin=2", "give data.size=64, or data.sizes=crop; data.bin=2"),
        ("(bin=3) images of one size; a bin", "(data.bin=3) images of one size; a bin"),  # plain words are English
        (
            "image_size=3 --size=4 x.size=5 /size=6 micro_batch_size",
            "image_size=3 --size=4 x.size=5 /size=6 micro_batch_size",
        ),
        ("folder/batch_size/a.npy, batch_size.npy", "folder/batch_size/a.npy, batch_size.npy"),
    ],
)
def test_arguments_are_renamed_as_whole_words(message: str, expected: str) -> None:
    assert renamed(message, KEYS) == expected
    assert renamed(message, {}) == message


def test_an_error_leaves_with_the_names_of_the_user_and_its_own_class() -> None:
    class SpecialError(InputError):
        pass

    with pytest.raises(SpecialError) as error, arguments_named({"batch_size": "--never"}), arguments_named(KEYS):
        raise SpecialError("batch_size=3 is odd")
    assert str(error.value) == "optim.batch_size=3 is odd"


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="^batch_size=3$"), arguments_named(KEYS):
        raise ValueError("batch_size=3")


@pytest.mark.parametrize("place", ["file/new.png", "folder", "missing/new.png"])
def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert one_line_errors(lambda: (tmp_path / place).write_text("") and None)() == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / place}: ")
    assert said.count("\n") == 1
