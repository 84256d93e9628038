"""Which files a set is made of: links, names, and folders that are not a set."""

import json
import logging
import os
import re

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from ssl_lens.cli import main as cli
from ssl_lens.data.folders.discovery import find_images
from ssl_lens.data.images import load_images, pack_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.splits import read_names, write_names
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)
_BYTES = os.fsdecode(b"\xff")  # no UTF-8
_PLAIN = {"policy": PixelPolicy(), "layout": "auto", "table": None}


def _save(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    np.save(path, _RNG.normal(size=(4, 4)))


def _sources(folder):
    return [source.name for source in find_images(folder, PixelPolicy(), "auto", None).sources]


@pytest.mark.parametrize("target", [".", "..", "../..", "/", "../b"])
def test_links_that_lead_back_are_refused(tmp_path, target):
    for name in ("a", "b"):
        _save(tmp_path / "set" / name / "0.npy")
    (tmp_path / "set" / "b" / "link").symlink_to("../a")
    assert _sources(tmp_path / "set") == ["a/0.npy", "b/0.npy", "b/link/0.npy"]
    (tmp_path / "set" / "a" / "link").symlink_to(target)
    with pytest.raises(InputError, match=r"set/.*link is a link to a folder around it; remove the link$"):
        load_images(tmp_path / "set", cache=tmp_path / "cache")


def test_links_to_themselves_are_not_images(tmp_path):
    _save(tmp_path / "set" / "0.npy")
    (tmp_path / "set" / "1.npy").symlink_to("1.npy")
    (tmp_path / "set" / "folder").symlink_to("folder")
    with pytest.raises(InputError, match="1 of 2 images .* such as 1.npy: Too many levels of symbolic links"):
        load_images(tmp_path / "set", cache=tmp_path / "cache")
    (tmp_path / "itself").symlink_to("itself")
    with pytest.raises(InputError, match="itself does not exist"):
        load_images(tmp_path / "itself", cache=tmp_path / "cache")


def test_names_that_are_kept_as_they_are_everywhere(tmp_path):
    names = ["a,b.npy", 'a"b.npy', "a'b.npy", "a#b.npy", "a b.npy", "a\u00a0b.npy", "b=c;d.npy", "é.npy", "x/ y.npy"]
    names += ["a.npy#000001.npy", "NA.npy", "-1.npy", "{a..b}.npy", "*.npy", "x/nan.npy", "$(touch x).npy"]
    for name in names:
        _save(tmp_path / "set" / name)
    names.sort()
    assert load_images(tmp_path / "set", cache=tmp_path / "cache").names == tuple(names)
    made = pack_images(tmp_path / "set", tmp_path / "pack", **_PLAIN)
    assert made.names == tuple(names)
    hashes = (tmp_path / "pack" / "images.sha256").read_text(encoding="utf-8").splitlines()
    assert [line[66:] for line in hashes] == names
    write_names(tmp_path / "split.txt", names)
    assert sorted(read_names(tmp_path / "split.txt")) == names
    assert cli.main(["data", "check", str(tmp_path / "set"), "--out", str(tmp_path / "report")]) == 0
    for name in names:  # left out and listed
        (tmp_path / "set" / name).write_bytes(b"no image")
    with pytest.raises(InputError, match="16 of 16 images"):
        pack_images(tmp_path / "set", tmp_path / "again", **_PLAIN)
    rows = (tmp_path / "again.quarantine.tsv").read_text(encoding="utf-8").splitlines()
    assert [row.split("\t")[0] for row in rows] == names
    cli.main(["data", "check", str(tmp_path / "set"), "--out", str(tmp_path / "report")])
    assert [name for name, _ in json.loads((tmp_path / "report" / "check.json").read_text())["unusable"]] == names


@pytest.mark.parametrize("place", ["{}.npy", "{}/0.npy", "Band1/{}1.npy"])
@pytest.mark.parametrize(
    "name", ["a\nb", "a\tb", "a\rb", "a\x1cb", "a\x85b", "a\u2028b", "a\x7fb", os.fsdecode(b"\xff")]
)
def test_names_that_no_text_file_can_hold_are_refused(tmp_path, capsys, place, name):
    _save(os.path.join(tmp_path, "set", place.format(name)))
    _save(tmp_path / "set" / "Band2" / "1.npy")
    for command in (["pack", str(tmp_path / "set"), str(tmp_path / "out")], ["check", str(tmp_path / "set")]):
        assert cli.main(["data", *command]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.fullmatch(r"error: file name '.*' has a line end, a tab, .*; rename it", line)
        assert line.isascii()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("name", ["#a.npy", " a.npy", "\u00a0a.npy"])
def test_names_that_a_split_file_would_not_keep_are_refused(tmp_path, name):
    _save(tmp_path / "set" / name)
    with pytest.raises(InputError, match="a space or # at its start; rename it"):
        load_images(tmp_path / "set", cache=tmp_path / "cache")


def test_names_in_a_table_are_held_to_the_same(tmp_path):
    for name in ("a\nb.npy", "a\0b.npy"):
        pyarrow.parquet.write_table(pyarrow.table({"file": [name]}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match=r"file name 'a\\(n|x00)b.npy' has a line end"):
            load_images(tmp_path / "t.parquet", cache=tmp_path / "cache")


def test_what_is_not_a_set(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "hidden" / ".inner").mkdir(parents=True)
    _save(tmp_path / "hidden" / ".inner" / "0.npy")
    _save(tmp_path / "hidden" / ".0.npy")
    with pytest.raises(InputError, match=r"path=.*hidden holds no images \(1 other files\)"):
        load_images(tmp_path / "hidden", cache=tmp_path / "cache")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"path=.*folder.csv holds no images \(0 other files\)"):
        load_images(tmp_path / "folder.csv", cache=tmp_path / "cache")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "x" * 300, "a\0b"):
        with pytest.raises(InputError, match="does not exist, or cannot be looked into; give a folder") as error:
            load_images(tmp_path / name, cache=tmp_path / "cache")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("command", [["pack", "", "out"], ["pack", "set", ""], ["check", ""]])
def test_an_empty_path_is_not_the_working_folder(tmp_path, capsys, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    _save(tmp_path / "0.npy")
    with pytest.raises(SystemExit) as stop:
        cli.main(["data", *command])
    assert stop.value.code == 2
    assert re.search(r"argument (DIR|OUT): is empty; give a path\n$", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["0.npy"]


def test_a_folder_whose_own_name_is_not_text(tmp_path, capsys):
    _save(os.path.join(tmp_path, _BYTES, "0.npy"))
    assert load_images(tmp_path / _BYTES, cache=tmp_path / "cache").names == ("0.npy",)
    with pytest.raises(SystemExit):
        cli.main(["data", "pack", str(tmp_path / _BYTES), str(tmp_path / "out")])
    assert "argument DIR: is not UTF-8; rename it" in capsys.readouterr().err
