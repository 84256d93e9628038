"""What may not be read or written is one line, by every way in."""

import json
from pathlib import Path

import numpy as np
import pytest
from shard_files import write_shards

from ssl_lens.cli import main as cli
from ssl_lens.data.images import load_images
from ssl_lens.data.shards.shard_list import list_shards
from ssl_lens.errors import InputError

_RNG = np.random.default_rng(0)


@pytest.fixture
def here(tmp_path, no_override, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    for name in ("set/a/0.npy", "set/b/1.npy"):
        (tmp_path / name).parent.mkdir(parents=True)
        np.save(tmp_path / name, _RNG.normal(size=(8, 8)))
    (tmp_path / "set" / "targets.csv").write_text("file,z\na/0.npy,1\nb/1.npy,2\n")
    assert cli.main(["data", "pack", "set", "packed"]) == 0
    write_shards(tmp_path / "shards", (2, 1))
    (tmp_path / "shards" / "sizes.json").write_text(json.dumps({"0.tar": 2, "1.tar": 1}))
    return tmp_path


@pytest.mark.parametrize(
    ("denied", "mode", "given", "message"),
    [
        ("set", 0, "set", "folder set cannot be read: Permission denied; make it readable"),
        ("set", 0o400, "set", "Permission denied"),
        ("set/a", 0, "set", "folder set/a cannot be read: Permission denied; make it readable"),
        ("set/a/0.npy", 0, "set", "1 of 2 images in set are unusable, such as a/0.npy: Permission denied"),
        ("set/targets.csv", 0, "set", "table set/targets.csv cannot be read .*Permission denied"),
        ("set", 0, "set/a", "path=set/a does not exist, or cannot be looked into"),
        ("set", 0, "set/targets.csv", "table set/targets.csv cannot be read .*Permission denied"),
        ("packed", 0, "packed", "folder packed cannot be read: Permission denied; make it readable"),
        ("packed/images.npy", 0, "packed", "packed/images.npy cannot be read .*Permission denied"),
        ("packed/images.csv", 0, "packed", "packed is not a whole pack .*Permission denied"),
        ("packed/images.sha256", 0, "packed", "packed is not a whole pack .*Permission denied"),
        ("packed/manifest.json", 0, "packed", "manifest.json is not the manifest of a pack .*Permission denied"),
    ],
)
def test_what_may_not_be_read(here, capsys, denied, mode, given, message):
    capsys.readouterr()
    (here / denied).chmod(mode)
    with pytest.raises(InputError, match=message) as error:
        load_images(Path(given))
    assert "\n" not in str(error.value)
    if denied != "set/a/0.npy" and mode == 0:  # an unusable image is a finding of the check
        assert cli.main(["data", "check", given, "--out", "out"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    (here / denied).chmod(0o700)
    assert len(load_images(here / "set")) == 2


@pytest.mark.parametrize(
    ("denied", "pattern", "message"),
    [
        ("shards/1.tar", "shards/{0..1}.tar", "shards/1.tar cannot be read, tried twice: .*Permission denied"),
        ("shards", "shards/{0..1}.tar", "2 of 2 shards do not exist, or cannot be looked into, such as shards/0.tar"),
        ("shards/sizes.json", "shards/{0..1}.tar", "sizes.json cannot be read: PermissionError; check the address"),
    ],
)
def test_shards_that_may_not_be_read(here, denied, pattern, message):
    if denied == "shards/1.tar":
        (here / "shards" / "sizes.json").unlink()
    (here / denied).chmod(0)
    with pytest.raises(InputError, match=message) as error:
        list_shards(pattern)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", [0, 0o500])
def test_what_may_not_be_written(here, capsys, caplog, mode):
    for name in ("cache", "out"):
        (here / name).mkdir(mode=mode)
    capsys.readouterr()
    for arguments in (
        ["data", "pack", "set", "out/pack"],
        ["data", "check", "set", "--out", "out/report"],
        ["simulate", "out/lenses", "--count", "3"],
    ):
        assert cli.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: cannot ")
        assert "Permission denied" in line
    with pytest.raises(InputError, match="cannot pack set into .*cache: Permission denied; set SSL_LENS_CACHE"):
        load_images(Path("set"))
    (here / "shards" / "sizes.json").unlink()
    assert len(list_shards("shards/{0..1}.tar")) == 2
    assert caplog.messages[-1] == "the counts of the shards are not kept: Permission denied; set SSL_LENS_CACHE"
    for name in ("cache", "out"):
        (here / name).chmod(0o700)
        assert list((here / name).iterdir()) == []
