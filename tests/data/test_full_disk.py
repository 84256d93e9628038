"""A disk that fills at any byte: one line, exit status 2, nothing half-written, and the same command works later.

The system itself refuses to write beyond a number of bytes of a file, in this process.
"""

import contextlib
import json
import resource

import numpy as np
import pytest
from shard_files import write_shards

from ssl_lens.cli import main as cli
from ssl_lens.data.images import load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.shards.shard_list import list_shards
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


@contextlib.contextmanager
def _room_for(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _set_of(folder, count, name_length):
    """Images of 16 bytes with long names, so that any file of the pack may be the longest."""
    folder.mkdir()
    for i in range(count):
        np.save(folder / f"{i:0{name_length}d}.npy", _RNG.normal(size=(2, 2)))
    return folder


def _one_line(err, what):
    assert err.count("\n") == 1, err
    assert err.startswith(f"error: cannot {what}"), err
    assert "File too large" in err, err


@pytest.mark.parametrize(("count", "name_length", "longest"), [(30, 60, "images.sha256"), (1, 1, "manifest.json")])
def test_pack_by_command(tmp_path, capsys, count, name_length, longest):
    root, out = _set_of(tmp_path / "set", count, name_length), tmp_path / "out" / "pack"
    command = ["data", "pack", str(root), str(out)]
    assert cli.main(["data", "pack", str(root), str(tmp_path / "whole")]) == 0
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "whole").iterdir()}
    assert max(sizes, key=sizes.get) == longest
    capsys.readouterr()
    for limit in (0, 1, *(size + by for size in sizes.values() for by in (-1, 0) if size + by < sizes[longest])):
        with _room_for(limit):
            assert cli.main(command) == 2
        _one_line(capsys.readouterr().err, f"pack {root} into {out}")
        assert list(out.parent.iterdir()) == []
    with _room_for(sizes[longest]):
        assert cli.main(command) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


def test_packing_into_the_cache(tmp_path):
    root, cache = _set_of(tmp_path / "set", 30, 60), tmp_path / "cache"
    np.save(root / "other.npy", _RNG.normal(size=(3, 3)))
    for limit in (0, 100, 500, 1000, 2000):
        for sizes in ("refuse", "pad"):
            with _room_for(limit), pytest.raises(InputError, match="cannot pack|mixes") as error:
                load_images(root, cache=cache, policy=PixelPolicy(sizes=sizes))
            assert "\n" not in str(error.value)
            assert list(cache.iterdir()) == []
    assert len(load_images(root, cache=cache, policy=PixelPolicy(sizes="pad"))) == 31


def test_counts_of_shards_are_kept_or_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    pattern = write_shards(tmp_path / "set", (3, 1, 5))
    for limit in (0, 10, 100):
        caplog.clear()
        with _room_for(limit):
            assert [shard.count for shard in list_shards(pattern)] == [3, 1, 5]
        assert caplog.messages == ["the counts of the shards are not kept: File too large; set SSL_LENS_CACHE"]
        assert list((tmp_path / "cache").iterdir()) == []
    list_shards(pattern)
    (kept,) = (tmp_path / "cache").iterdir()
    assert sorted(json.loads(kept.read_text()).values()) == [1, 3, 5]


def test_a_report(tmp_path, capsys):
    root, out = _set_of(tmp_path / "set", 3, 10), tmp_path / "report"
    command = ["data", "check", str(root), "--out", str(out)]
    for limit in (10, 5000):  # of the text, of a picture
        with _room_for(limit):
            assert cli.main(command) == 2
        _one_line(capsys.readouterr().err, f"write the report to {out}")
        assert not out.exists()
    assert cli.main(command) == 0
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(files) == ["check.json", "contact_sheet.png", "histograms.png"]
    capsys.readouterr()
    with _room_for(5000):
        assert cli.main(command) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files  # the older report stays whole


def test_a_list_of_unusable_images(tmp_path):
    root = _set_of(tmp_path / "set", 150, 10)
    (root / "bad.npy").write_bytes(b"no image")
    listed = tmp_path / "run" / "bad.tsv"
    load_images(root, cache=tmp_path / "cache", quarantine=listed)
    whole = listed.read_text()
    with _room_for(5), pytest.raises(InputError, match="cannot list 1 unusable images in .*: File too large; choose"):
        load_images(root, cache=tmp_path / "cache", quarantine=listed)
    assert (listed.read_text(), len(list(listed.parent.iterdir()))) == (whole, 1)


def test_simulate_by_command(tmp_path, capsys):
    out = tmp_path / "set"
    arguments = ["--count", "6", "--image-size", "32", "--pixel-scale-arcsec", "0.2", "--workers", "1"]
    for limit in (10, 4000):  # of the settings, of an image
        with _room_for(limit):
            assert cli.main(["simulate", str(out), *arguments]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"error: cannot write simulated lenses to {out}: ")
        assert [path for path in out.rglob("*") if path.is_file()] == [out / "simulation.json"] * (limit > 10)
    with pytest.raises(InputError, match="set is not finished; give its command again, which continues it"):
        load_images(out, cache=tmp_path / "cache")
    assert cli.main(["simulate", str(out), *arguments]) == 0
    assert len(load_images(out, cache=tmp_path / "cache")) == 6


def test_a_damaged_record_of_a_simulation(tmp_path, capsys):
    (tmp_path / "simulation.json").write_text("{")
    for text, reported in (("{", "is damaged"), ("[]", "is not the record of a simulation"), ("\xff", "is damaged")):
        (tmp_path / "simulation.json").write_text(text, encoding="latin-1")
        assert cli.main(["simulate", str(tmp_path), "--count", "3"]) == 2
        assert reported in capsys.readouterr().err
