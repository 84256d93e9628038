"""Tables that lie in a folder of images, and what pretraining sees of what they hold out."""

import logging
import re

import numpy as np
import pytest
from astropy.table import Table as AstropyTable

from ssl_lens.cli import main as cli
from ssl_lens.data.images import load_images
from ssl_lens.data.source import open_source
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six images in two folders that are no classes."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    for i in range(6):
        (tmp_path / "set" / f"field{i % 2}").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "set" / f"field{i % 2}" / f"{i:03d}.npy", _RNG.normal(size=(8, 8)))
    return tmp_path / "set"


def _rows(header, *columns):
    return "\n".join([header, *(",".join(map(str, row)) for row in zip(*columns, strict=True))]) + "\n"


IDS = range(6)
CLASSES = ["lens", "nolens"] * 3


@pytest.mark.parametrize("name", ["targets.csv", "labels.csv", "Catalog.TSV", "metadata.txt", "annotations.csv"])
def test_its_classes_take_the_place_of_the_folders(folder, name, caplog):
    caplog.set_level(logging.INFO)
    (folder / name).write_text(_rows("id,is_lens", IDS, CLASSES[::-1]))
    loaded = load_images(folder)
    assert loaded.names[0] == "field0/000.npy"
    assert loaded.classes == ("lens", "nolens")
    assert loaded.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert "images are found with other zeros: 0 is field0/000.npy" in caplog.text


def test_a_fits_table_among_fits_images_is_no_image(folder):
    AstropyTable({"name": [f"{i:03d}" for i in IDS], "label": CLASSES}).write(folder / "targets.fits")
    assert load_images(folder).labels.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("command", [["data", "check"], ["data", "pack"]])
def test_a_table_about_no_image_is_refused_with_the_nearest_name(folder, command, capsys, tmp_path):
    (folder / "targets.csv").write_text(_rows("name,label", [f"field{i % 2}-{i:03d}x" for i in IDS], CLASSES))
    out = [str(tmp_path / "out")] if command[1] == "pack" else []
    assert cli.main([*command, str(folder), *out]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(
        r"the table .*targets.csv is about none of the 6 images: its field0-000x is none of them, the nearest is "
        r"field0/000.npy; write the images' names into it, or remove it$",
        line,
    )


def test_what_is_left_over_is_counted(folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / "targets.csv").write_text(_rows("name,label", ["000", "001", "002", "x"], ["a", "-", "b", "b"]))
    loaded = load_images(folder)
    assert loaded.labels.tolist() == [0, 1, -1, -1, -1, -1]
    for line in (
        "targets.csv: 1 rows have no class in label: '-' (1)",
        f"targets.csv: 1 of 4 rows are about no image of {folder}, such as x",
        f"targets.csv: 3 of 6 files of {folder} have no row, such as field0/004.npy",
        "classes 0 a (1), 1 b (1), unlabelled (4)",
    ):
        assert line in caplog.text
    assert len(open_source(str(folder))) == 6  # images without a class are there to pretrain on
    assert len(loaded.labelled()) == 2


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("id,split", ["test", "train"]),
        ("id,Split", ["Hold-out", "Training"]),
        ("id,part", ["dev", ""]),
        ("id,subset", ["testing", "train"]),
        ("id,usage", ["validation", "train"]),
        ("id,is_test", [1, 0]),
        ("id,isTest", ["True", "False"]),
        ("id,train", ["no", "yes"]),
        ("id,in_training_set", ["0.0", "1.0"]),
    ],
)
def test_what_a_column_holds_out_is_not_pretrained_on(folder, header, values):
    (folder / "targets.csv").write_text(_rows(header, IDS, values * 3))
    assert open_source(str(folder)).names == ("field1/001.npy", "field1/003.npy", "field1/005.npy")


def test_what_lists_hold_out_is_not_pretrained_on(folder):
    (folder / "test.txt").write_text("000\n002\n")
    assert open_source(str(folder)).names == tuple(f"field{i % 2}/{i:03d}.npy" for i in (4, 1, 3, 5))
    (folder / "labels.csv").write_text(_rows("name,label", [f"{i:03d}" for i in IDS], CLASSES))
    loaded = load_images(folder)
    assert loaded.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert loaded.held_out.tolist() == [True, True, *[False] * 4]
    (folder / "train.txt").write_text("000\n")
    with pytest.raises(InputError, match=r"000 is test in one table and train in .*train.txt; correct one"):
        load_images(folder)


def test_what_folders_hold_out_no_table_gives_back(folder):
    (folder / "field0").rename(folder / "test")
    (folder / "targets.csv").write_text(_rows("id,split", IDS, ["train"] * 6))
    assert open_source(str(folder)).names == ("field1/001.npy", "field1/003.npy", "field1/005.npy")


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        (
            "id,split",
            [0, 1, 2, 3, 4, 0],
            "column split holds the numbers 0, 1, 2, 3, 4, as folds have, and does not say",
        ),
        ("id,split", ["fold1", "fold2"] * 3, "column split holds the numbers fold1, fold2, as folds have"),
        ("id,split", ["train", "gold"] * 3, "split in row 2 is gold, not a part of a set; write train, val or test"),
        ("id,split,is_test", ["train,1", "test,1"] * 3, "columns split, is_test contradict each other in row 1"),
    ],
)
def test_parts_that_are_not_clear_are_refused(folder, header, values, message):
    (folder / "targets.csv").write_text(_rows(header, IDS, values))
    with pytest.raises(InputError, match=message):
        load_images(folder)


def test_a_column_of_folds_is_a_number(folder):
    (folder / "targets.csv").write_text(_rows("id,fold", IDS, [0, 1, 2] * 2))
    assert load_images(folder).targets["fold"].tolist() == [0, 2, 1, 1, 0, 2]


def test_several_tables_are_refused_and_others_are_named(folder, caplog):
    (folder / "predictions.csv").write_text(_rows("id,label", IDS, CLASSES))
    assert load_images(folder).classes == ("field0", "field1")
    assert "predictions.csv is not read; if it says what the images are, call it targets.csv" in caplog.text
    (folder / "targets.csv").write_text(_rows("id,label", IDS, CLASSES))
    (folder / "labels.csv").write_text(_rows("id,label", IDS, CLASSES))
    with pytest.raises(InputError, match=r"several tables of its images \(labels.csv, targets.csv\); keep one, rename"):
        load_images(folder)


def test_a_spreadsheet_is_to_be_saved_as_csv(folder):
    (folder / "targets.xlsx").write_bytes(b"PK")
    with pytest.raises(
        InputError, match=r"targets.xlsx is a kind of table that is not read; save it as CSV, or rename"
    ):
        load_images(folder)


def test_a_bad_cell_is_named(folder, caplog):
    (folder / "targets.csv").write_text(_rows("id,z", IDS, [0.5, 1, "1.5?", 2, 1, 1]))
    assert load_images(folder).targets.keys() == set()
    assert "column z is left out, since '1.5?' of 2 (row 3) is not a number; correct it" in caplog.text


def test_a_table_in_the_place_of_the_folder_spells_names_freely(folder):
    (folder / "some.csv").write_text(_rows("id,label", [1, 2], ["a", "b"]))
    loaded = load_images(folder / "some.csv")
    assert (loaded.names, loaded.labels.tolist()) == (("field0/002.npy", "field1/001.npy"), [1, 0])
