import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ssl_lens.data.folders.name_matching import look_up
from ssl_lens.data.folders.tables import Table, read_table, read_written, write_table
from ssl_lens.errors import InputError
from ssl_lens.simulation.sets import simulate_lenses

TABLE = "file,kind,theta_e,mass\na/0.npy,x,1.5,1e10\na/1.npy,x,,2e10\nb/2.npy,y,nan,3e10\nb/9.npy,y,2.5,\n"


def _table(names, labels=None, parts=None, **targets):
    nothing = (None,) * len(names)
    return Table(tuple(names), labels or nothing, parts or nothing, {k: np.array(v) for k, v in targets.items()})


def test_numbers_are_targets_and_what_is_empty_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text(TABLE)
    table = read_table(tmp_path / "t.csv")
    assert table.names == ("a/0.npy", "a/1.npy", "b/2.npy", "b/9.npy")
    assert table.labels == table.parts == (None,) * 4
    assert list(table.targets) == ["theta_e", "mass"]
    np.testing.assert_array_equal(table.targets["theta_e"], [1.5, np.nan, np.nan, 2.5])
    np.testing.assert_array_equal(table.targets["mass"], [1e10, 2e10, 3e10, np.nan])


def test_labels_parts_and_names_are_words_even_where_they_are_digits(tmp_path):
    (tmp_path / "t.csv").write_text("\ufeffid,class,split,q\n007,01,train,1\n008,,test,2\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv")
    assert table.names == ("007", "008")
    assert table.labels == ("01", None)
    assert table.parts == ("train", "test")
    assert list(table.targets) == ["q"]


def test_parquet_is_read_alike(tmp_path):
    columns = {
        "path": ["x.npy", "y.npy"],
        "label": pyarrow.array([1, 0]).dictionary_encode(),
        "lens": [True, False],
        "z": pyarrow.array([0.5, None], pyarrow.float32()),
        "note": ["a", "b"],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (table.names, table.labels) == (("x.npy", "y.npy"), ("1", "0"))
    assert {name: values.tolist() for name, values in table.targets.items()} == {
        "lens": [1.0, 0.0],
        "z": [0.5, pytest.approx(np.nan, nan_ok=True)],
    }


def test_what_is_written_is_read_back(tmp_path):
    written = _table(["a,b", 'c"d'], labels=("1", None), z=[0.1, np.nan], tiny=[1e-300, 1e300])
    write_table(written, tmp_path / "t.csv")
    read = read_written(tmp_path / "t.csv")
    assert read[:3] == written[:3]
    for name in ("z", "tiny"):
        np.testing.assert_array_equal(read.targets[name], written.targets[name])


def test_lines_are_joined_by_name_and_an_image_of_many_has_the_line_of_its_file():
    table = _table(["s.npy", "s.npy#000001", "gone.npy"], labels=("a", "b", "c"), z=[1.0, 2.0, 3.0])
    both = look_up(["x.npy", "s.npy#000000", "s.npy#000001"], table)
    assert both.labels == (None, "a", "b")
    np.testing.assert_array_equal(both.targets["z"], [np.nan, 1, 2])
    assert look_up(["x.npy"], _table([], z=np.empty(0))).targets["z"].shape == (1,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n,t\na,inf\n", "t of a is infinite; correct it"),
        ("n,t\na,1\na,2\n", "two rows for a that differ, 1 and 2; keep one"),
        ("", "cannot be read .* give one with a header, one row an image: .csv .tsv"),
        ("n,t\n", "has no rows; it needs a header"),
        ("n,t\n,1\n", "no image's name in row 1 of column n; write it there"),
        ("n,t,t\na,1,2\n", "two columns of one name"),
        ("n,t\na,1\nb\n", "cannot be read .row 2 has 1 cells where 2 are needed: b"),
    ],
)
def test_unusable_tables_are_one_line(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(raised.value)


def test_damaged_and_missing_tables(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"t.parquet cannot be read"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"none.csv cannot be read"):
        read_table(tmp_path / "none.csv")


def test_the_table_of_simulated_lenses(tmp_path):
    folder = simulate_lenses(tmp_path / "set", count_per_class=2, image_size=32, pixel_scale_arcsec=0.2, seed=1)
    table = read_table(folder / "parameters.csv")
    assert len(table.names) == 6
    assert table.labels == ("axion",) * 2 + ("cdm",) * 2 + ("no_sub",) * 2
    assert np.isfinite(table.targets["axion_mass_ev"]).tolist() == [True] * 2 + [False] * 4


def _columns(**columns):
    return pyarrow.table({"file": ["a.npy", "b.npy"]} | columns)


@pytest.mark.parametrize(
    "values",
    [
        pyarrow.array([["a"], ["b"]]),
        pyarrow.array([{"a": 1}, {"a": 2}]),
        pyarrow.array([b"\xff", b"\xfe"]),
    ],
)
def test_names_and_labels_that_are_not_texts(tmp_path, values):
    for table in (_columns(label=values), _columns(split=values), _columns(file=values)):
        pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(
            InputError, match="t.parquet cannot be used: a name, class or part is a .*; write texts or numbers"
        ) as error:
            read_table(tmp_path / "t.parquet")
        assert "\n" not in str(error.value)
    pyarrow.parquet.write_table(_columns(other=values), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").targets == {}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_truncated_tables_are_one_line_or_shorter(tmp_path, suffix):
    """A CSV file that is cut at a line end looks whole; the manifest of a pack shows it."""
    path = tmp_path / f"t{suffix}"
    columns = _columns(z=[0.25, 1e-24])
    pyarrow.parquet.write_table(columns, path) if suffix == ".parquet" else pyarrow.csv.write_csv(columns, path)
    data = path.read_bytes()
    refused = 0
    for length in {*range(0, len(data), max(len(data) // 100, 1)), len(data) - 1}:
        path.write_bytes(data[:length])
        try:
            table = read_table(path)
        except InputError as error:
            refused += "\n" not in str(error)
        else:
            assert suffix == ".csv"
            assert all("a.npy".startswith(name) or "b.npy".startswith(name) for name in table.names)
    assert refused > (100 if suffix == ".parquet" else 3)


def test_a_parquet_bomb(tmp_path):
    count = 20_000_000
    kind = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(count, np.int32)), pyarrow.array(["a.npy"]))
    pyarrow.parquet.write_table(pyarrow.table({"file": same.cast(kind)}), tmp_path / "t.parquet")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match="Parquet declares 160000000 bytes in .* stored ones; at most"):
        read_table(tmp_path / "t.parquet")


def test_texts_of_several_lines_survive_in_long_tables(tmp_path):
    """Long tables are read in blocks, whose borders fall into texts."""
    names = [f"{i:06d}.npy" for i in range(60_000)]
    labels = ["a\nb\n" * 4, 'c"\n,d' * 4] * 30_000
    write_table(_table(names, labels), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").stat().st_size > 2 << 20
    assert read_written(tmp_path / "t.csv").labels == tuple(labels)
