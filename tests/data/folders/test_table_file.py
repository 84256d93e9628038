"""The same table, in every way in which spreadsheets, scripts and catalogues write it."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Column as AstropyColumn
from astropy.table import Table as AstropyTable

from ssl_lens.data.folders.table_file import read_columns
from ssl_lens.data.folders.tables import read_table
from ssl_lens.errors import InputError

PLAIN = "name,label,z\na/0.npy,lens,0.5\na/1.npy,nolens,\n"
NAMES, LABELS, Z = ("a/0.npy", "a/1.npy"), ("lens", "nolens"), [0.5, np.nan]


def _is_plain(path):
    table = read_table(path)
    assert (table.names, table.labels, table.parts) == (NAMES, LABELS, (None, None))
    assert list(table.targets) == ["z"]
    np.testing.assert_array_equal(table.targets["z"], Z)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\n\n") + "\n  \n",
        "\ufeff" + PLAIN,
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ";").replace("0.5", "0,5"),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace(",", " , "),
        "name label z\na/0.npy lens   0.5\na/1.npy\tnolens nan\n",
        "# from the survey\n# name, label, z\na/0.npy,lens,0.5\n# a note\na/1.npy,nolens,\n",
        "# name label z\na/0.npy lens 0.5\na/1.npy nolens --\n",
        'name,label,z\n"a/0.npy","lens","0.5"\n"a/1.npy","nolens",""\n',
        "'name','label','z'\n'a/0.npy','lens','0.5'\n'a/1.npy','nolens',''\n",
        ",name,label,z\n0,a/0.npy,lens,0.5\n1,a/1.npy,nolens,\n",
        "Unnamed: 0,name,label,z\n0,a/0.npy,lens,0.5\n1,a/1.npy,nolens,\n",
        ",label,z\na/0.npy,lens,0.5\na/1.npy,nolens,\n",  # an index of names
        "label,z\na/0.npy,lens,0.5\na/1.npy,nolens,NA\n",  # as R writes row names
        "z,label,name\n0.5,lens,a/0.npy\n,nolens,a/1.npy\n",
        "z,Class,File Name\n0.5,lens,a/0.npy\n,nolens,a/1.npy\n",
        "z,CLASS_NAME,imagePath\n5e-1,lens,a/0.npy\n#N/A,nolens,a/1.npy\n",
        "name,label,z,\na/0.npy,lens,0.5,\na/1.npy,nolens,,\n",
        PLAIN + "a/1.npy,nolens,\n",  # a row twice
        "name,z,is_lens,note\na/0.npy,0.5,lens,x y\na/1.npy,,nolens,\n",
        "name,z,lens,nolens\na/0.npy,0.5,1,0\na/1.npy,,0,1\n",
        "name,z,class_lens,class_nolens,bright\na/0.npy,0.5,True,False,x\na/1.npy,,False,True,y\n",
        "name,label,class,z\na/0.npy,1,lens,0.5\na/1.npy,0,nolens,\n",
    ],
)
def test_text_in_every_spelling(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv")
    assert (table.names, table.labels, table.parts) == (NAMES, LABELS, (None, None))
    np.testing.assert_array_equal(table.targets["z"], Z)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_encodings_of_spreadsheets(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("name;label\né.npy;Überlinse\n".encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert (table.names, table.labels) == (("é.npy",), ("Überlinse",))


@pytest.mark.parametrize("suffix", [".fits", ".ecsv", ".vot", ".xml", ".FITS"])
@pytest.mark.filterwarnings("ignore::astropy.units.UnitsWarning")
def test_tables_of_astronomers(tmp_path, suffix):
    made = AstropyTable(
        {
            "name": list(NAMES),
            "label": list(LABELS),
            "z": AstropyColumn(Z, unit="arcsec"),
            "spectrum": np.zeros((2, 3)),
        }
    )
    kinds = {".fits": "fits", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable"}
    made.write(tmp_path / f"t{suffix}", format=kinds[suffix.lower()])
    _is_plain(tmp_path / f"t{suffix}")


@pytest.mark.parametrize("suffix", [".fits", ".vot"])
def test_masked_and_integer_columns(tmp_path, suffix):
    made = AstropyTable({"id": np.array([7, 8], ">i4"), "flag": [True, False], "n": [1, 2]}, masked=True)
    made["n"].mask = [False, True]
    made.write(tmp_path / f"t{suffix}", format="fits" if suffix == ".fits" else "votable")
    table = read_table(tmp_path / f"t{suffix}")
    assert table.names == ("7", "8")
    assert table.targets["flag"].tolist() == [1, 0]
    np.testing.assert_array_equal(table.targets["n"], [1, np.nan])


@pytest.mark.parametrize(
    ("text", "names", "labels"),
    [
        ("a/0.npy,lens\na/1.npy,nolens\n", NAMES, LABELS),
        ("a/0.npy lens\na/1.npy nolens\n", NAMES, LABELS),
        ("lens a/0.npy\nnolens a/1.npy\n", NAMES, LABELS),
        ("a/0.npy\na/1.npy\n", NAMES, (None, None)),
        ("7,lens\n8,nolens\n", ("7", "8"), LABELS),
        ("7\n8\n", ("7", "8"), (None, None)),
    ],
)
def test_tables_without_a_header(tmp_path, text, names, labels):
    (tmp_path / "t.txt").write_text(text)
    table = read_table(tmp_path / "t.txt")
    assert (table.names, table.labels, table.parts) == (names, labels, (None, None))


def test_parts_without_a_header(tmp_path):
    (tmp_path / "t.txt").write_text("a/0.npy,lens,train\na/1.npy,nolens,test\n")
    table = read_table(tmp_path / "t.txt")
    assert (table.names, table.labels, table.parts) == (NAMES, LABELS, ("train", "test"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"a.npy,lens,x\nb.npy,nolens,y\n", "has no header to say what its columns are; add one, such as"),
        ("t.csv", b"a.npy,0.25\nb.npy,0.5\n", "has no header"),
        ("t.csv", b"n,t\na,1\0\n", r"cannot be read \(it holds NUL bytes, so that it is no text\)"),
        ("t.fits", b"SIMPLE  =", "t.fits cannot be read"),
        ("t.vot", b"<VOTABLE>", "t.vot cannot be read"),
        ("t.ecsv", b"# %ECSV 1.0\n", "t.ecsv cannot be read"),
        ("t.xlsx", b"PK", r"cannot be read \(files .xlsx are not read; save it as CSV\)"),
        ("t.csv", b'n,t\na,"1\n', "cannot be read"),
        ("t.csv", b"label,split\nx,train\n", "no column of table .*t.csv names images; add one called name"),
        ("t.csv", b"name,label,class\na,1,x\nb,1,y\n", "has the classes twice, in label and class; keep one"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_table(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_name_with_a_hash_in_a_quoted_text_is_no_comment(tmp_path):
    (tmp_path / "t.csv").write_text('name,note\na.npy,"one\n# two"\nb.npy,x\n')
    columns, named = read_columns(tmp_path / "t.csv")
    assert named
    assert columns[1].cells == ["one\n# two", "x"]


def _refused(path):
    with pytest.raises(InputError) as raised:
        read_columns(path)
    return str(raised.value)


def test_a_votable_fetches_nothing_and_expands_nothing(tmp_path):
    table, path = AstropyTable({"name": ["a.npy", "b.npy"], "z": [1.0, 2.0]}), tmp_path / "targets.vot"
    table.write(path, format="votable", tabledata_format="binary2")
    text = path.read_text()
    assert read_columns(path)[0][1].cells == [1, 2]
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 100)
    path.write_text(text.replace('<STREAM encoding="base64">', f'<STREAM href="file://{secret}" encoding="base64">'))
    assert f"its data lie in file://{secret}, which is not followed; save the table whole" in _refused(path)
    path.write_text(text.replace("?>", '?>\n<!DOCTYPE VOTABLE [<!ENTITY a "aaaa">]>', 1))
    assert "it declares the entity a; save it without" in _refused(path)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("NAXIS   = 99999999999999", "declares 99999999999999 axes"),
        ("TBCOL2  =           999999", "its columns take"),
        ("TFORM1  = 'A9999999'", "its columns take"),
    ],
)
def test_fits_tables_of_absurd_forms(tmp_path, card, message):
    path = tmp_path / "targets.fits"
    names, numbers = np.array(["a.npy", "b.npy"]), np.arange(2.0)
    columns = [fits.Column("name", "A5", array=names), fits.Column("z", "E15.7", array=numbers)]
    fits.HDUList([fits.PrimaryHDU(), fits.TableHDU.from_columns(columns)]).writeto(path)
    assert read_columns(path)[0][1].cells == [0, 1]
    data = path.read_bytes()
    place = data.rindex(card[:8].encode())
    path.write_bytes(data[:place] + card.encode().ljust(80) + data[place + 80 :])
    assert message in _refused(path)
