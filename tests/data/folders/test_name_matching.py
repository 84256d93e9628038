"""Names as tables have them, and the images that they mean."""

from pathlib import Path

import numpy as np
import pytest

from ssl_lens.data.folders.name_matching import match, nearest
from ssl_lens.data.folders.tables import Table
from ssl_lens.errors import InputError

ROOT = Path("/data/lenses")
FLAT = ("007.npy", "012.npy", "100.npy")
DEEP = ("field1/007.npy", "field2/012.npy", "field2/100.npy")


def _table(names, *other_names):
    nothing = (None,) * len(names)
    return Table(tuple(names), nothing, nothing, {}, other_names)


def _found(images, names, root=ROOT):
    found = match(images, _table(names), root)
    return [None if row < 0 else names[row] for row in found.rows]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (DEEP, DEEP),
        (DEEP, tuple(name.removesuffix(".npy") for name in DEEP)),
        (DEEP, tuple(name.replace(".npy", ".fits.fz") for name in DEEP)),
        (DEEP, tuple(name.replace(".npy", ".fits.gz") for name in DEEP)),
        (DEEP, tuple(f"./{name}" for name in DEEP)),
        (DEEP, tuple(f"lenses/{name}" for name in DEEP)),  # relative to the folder's parent
        (DEEP, tuple(f"/data/lenses/{name}" for name in DEEP)),
        (DEEP, tuple(f"/home/bob/other/{name}" for name in DEEP)),
        (DEEP, tuple(f"D:\\bob\\{name}".replace("/", "\\") for name in DEEP)),
        (DEEP, tuple(f"file:///home/bob/{name}" for name in DEEP)),
        (DEEP, tuple(name.upper() for name in DEEP)),
        (DEEP, ("007.npy", "012.npy", "100.npy")),
        (DEEP, ("7", "12", "100")),
        (DEEP, ("7.0", "12.0", "100.0")),
        (DEEP, ("field1/7", "field2/12", "field2/100")),
        (FLAT, ("lens_007", "lens_012", "lens_100")),  # a part of the table's name
        (("lens_007.npy", "lens_012.npy", "lens_100.npy"), ("7", "12", "100")),
        (("lens_007_g.npy", "lens_012_g.npy"), ("lens_007", "lens_012")),
        (("cutout_J0946+1006.fits", "cutout_J0946-1006.fits"), ("J0946+1006", "J0946-1006")),
        (("SDSSJ0946+1006_i.fits", "SDSSJ1250+0523_i.fits"), ("J0946+1006", "J1250+0523")),
        (("SDSSJ0946+1006.fits", "SDSSJ1250+0523.fits"), ("SDSS J0946+1006", "SDSS J1250+0523")),
        (("a.fits.fz", "b.fits.fz"), ("a", "b")),
        (("cube.npy#000000", "cube.npy#000012"), ("0", "12")),
        (("set.tar#x/a", "set.tar#x/b"), ("x/a", "x/b")),
        (("set.tar#x/a", "set.tar#x/b"), ("a", "b")),
    ],
)
def test_spellings(images, names):
    assert _found(images, names) == list(names)
    assert _found(images, names[::-1]) == list(names)


def test_images_without_rows_and_rows_without_images():
    found = match(FLAT, _table(("100", "7", "13")), ROOT)
    assert found.rows.tolist() == [1, -1, 0]
    assert found.unmatched.tolist() == [2]
    assert found.spelled == "with other zeros"


def test_the_spelling_that_finds_most_is_taken_and_the_strictest_of_these():
    images = [f"{i:03d}.npy" for i in range(200)]
    assert match(images, _table([str(i) for i in range(200)]), None).rows.tolist() == list(range(200))
    found = match(("a1.npy", "b2.npy"), _table(("A1", "a1", "b2")), None)
    assert found.rows.tolist() == [1, 2]
    assert found.spelled == "without the suffix"


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (("a/7.npy", "b/7.npy"), ("7", "8"), "7 of the table could be a/7.npy or b/7.npy; write more of its path"),
        (("007.npy",), ("7", "07"), "7 and 07 of the table are both 007.npy; keep one"),
        (("a_7.npy", "b_7.npy"), ("7", "8"), "7 of the table could be a_7.npy or b_7.npy; write the whole name"),
    ],
)
def test_what_is_not_clear_is_refused(images, names, message):
    with pytest.raises(InputError, match=message):
        match(images, _table(names), ROOT)


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (("test/7.npy", "test/8.npy"), ("train/7.npy", "train/8.npy")),  # of another part
        (("a/7.npy",), ("b/7.npy",)),
        (("lens1.npy", "lens2.npy"), ("nolens1", "nolens2")),
        (FLAT, ("x", "y", "z")),
    ],
)
def test_others_are_not_matched(images, names):
    assert _found(images, names) == [None] * len(images)


def test_a_table_of_the_training_part_is_not_about_a_folder_of_tests():
    assert _found(FLAT, ("train/007.npy",), Path("/data/test")) == [None] * 3
    assert _found(FLAT, ("train/007.npy",), Path("/data/train")) == ["train/007.npy", None, None]


def test_another_column_of_names_where_the_first_is_none():
    found = match(FLAT, _table(("x", "y", "z"), ("007", "012", "100")), ROOT)
    assert found.rows.tolist() == [0, 1, 2]
    assert found.names == ("007", "012", "100")


def test_a_large_table_is_matched_in_a_moment():
    images = [f"s{i % 1000}/{i}/data.fits" for i in range(20_000)]
    found = match(images, _table([f"x/{name}" for name in images]), ROOT)
    np.testing.assert_array_equal(found.rows, np.arange(20_000))


def test_the_nearest_name():
    assert nearest(_table(("field1_007.npy",)), DEEP) == ("field1_007.npy", "field1/007.npy")
