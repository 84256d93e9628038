import logging
from pathlib import Path

import numpy as np
import pytest

from ssl_lens.data.images import ImageSet
from ssl_lens.data.simulate import simulate_lenses
from ssl_lens.data.targets import find_table, read_targets, with_targets
from ssl_lens.errors import InputError

TABLE = "file,kind,theta_e,mass\na/0.npy,x,1.5,1e10\na/1.npy,x,,2e10\nb/2.npy,y,nan,3e10\nb/9.npy,y,2.5\n"


def _images(count: int = 4) -> ImageSet:
    names = ("a/0.npy", "a/1.npy", "b/2.npy", "b/9.npy", "c/0.npy")[:count]
    return ImageSet(np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1), names, None, ())


@pytest.fixture
def table(tmp_path) -> Path:
    (tmp_path / "targets.csv").write_text(TABLE)
    return tmp_path / "targets.csv"


def test_columns_are_joined_by_name_and_images_without_a_value_left_out_and_counted(table, caplog):
    caplog.set_level(logging.INFO)
    images, values = with_targets(_images(5), read_targets(table, ["theta_e"]))
    assert images.names == ("a/0.npy", "b/9.npy")
    assert images.images.ravel().tolist() == [0, 3]
    assert values.tolist() == [[1.5], [2.5]]
    (record,) = caplog.records
    assert record.message == (f"3 of 5 images left out: 1 without a line in {table}, 2 without a value of theta_e")


def test_several_columns_need_all_values(table):
    images, values = with_targets(_images(3), read_targets(table, ["mass"]))
    assert values.ravel().tolist() == [1e10, 2e10, 3e10]
    with pytest.raises(InputError, match="gives mass, theta_e for 1 of 4 images; .* such as a/0.npy"):
        with_targets(_images(), read_targets(table, ["mass", "theta_e"]))


def test_the_table_of_simulated_lenses_is_found_and_read(tmp_path):
    folder = simulate_lenses(tmp_path / "set", count_per_class=2, image_size=32, pixel_scale_arcsec=0.2, seed=1)
    targets = read_targets(find_table(folder), ["axion_mass_ev", "exposure_s"])
    assert len(targets.values) == 6
    assert np.isfinite([row[0] for name, row in targets.values.items() if name.startswith("axion/")]).all()
    assert np.isnan([row[0] for name, row in targets.values.items() if name.startswith("cdm/")]).all()
    (folder / "targets.csv").write_text(TABLE)
    assert find_table(folder).name == "targets.csv"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (TABLE, "theta", "--target theta is no column of .*; the nearest are theta_e"),
        (TABLE, "file", "it has kind, theta_e, mass"),
        (TABLE, "kind", "kind of a/0.npy is 'x', not a number"),
        ("n,t\na,inf\n", "t", "t of a is 'inf', not a number"),
        ("n,t\na,1\na,2\n", "t", "two lines for a"),
        ("", "t", "cannot be read"),
    ],
)
def test_unusable_tables_are_one_line(tmp_path, text, column, message):
    (tmp_path / "targets.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_targets(tmp_path / "targets.csv", [column])


def test_no_table(tmp_path):
    with pytest.raises(InputError, match="neither targets.csv nor parameters.csv; .* --targets FILE"):
        find_table(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_targets(tmp_path / "none.csv", ["t"])
