"""A disk that fills up: one line, and what was whole before is whole after."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssl_lens.cli import main as cli
from ssl_lens.recipe import compose
from ssl_lens.runs import checkpoint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount")
    if not mounted or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=False).returncode:
        pytest.skip("a file system can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def _fill(disk: Path, left: int = 0) -> None:
    """Leaves so many bytes, to the page."""
    with (disk / "filler").open("wb") as file:
        free = shutil.disk_usage(disk).free - left
        while free > 0:
            free -= file.write(b"0" * min(free, 1 << 20))


class _FillsBefore:
    """Fills the disk of a run before one of its steps."""

    def __init__(self, disk: Path, step: int, left: int) -> None:
        self.disk, self.step, self.left = disk, step, left

    def __call__(self) -> None:
        views_at = compose.Pretraining.views_at

        def at(run, step):
            if step == self.step:
                _fill(self.disk, self.left)
            return views_at(run, step)

        compose.Pretraining.views_at = at


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (0, "No space left on device"),
        (30_000, "are needed"),  # found before anything is written
    ],
    ids=["logging", "saving"],
)
def test_a_run_whose_disk_fills_up(runs, small_disk, left, message):
    runs.folder = lambda name: small_disk / name
    assert runs.finish("a", before=_FillsBefore(small_disk, 7, left)) == 2
    said = runs.said("a")
    assert "Traceback" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert message in line
    found = checkpoint.find_checkpoints(runs.folder("a") / "checkpoints")
    assert [path.name for path in found.whole] == ["step_00000006", "step_00000003"]
    assert not found.damaged
    assert not [path for path in runs.leftovers("a") if "making" in path]  # no part of the save
    assert runs.finish("a") == 2  # resuming needs room too
    assert "Traceback" not in runs.said("a")
    (small_disk / "filler").unlink()
    assert runs.finish("a") == 0
    runs.folder = lambda name: small_disk.parent / name
    assert runs.finish("b") == 0
    runs.folder = lambda name: (small_disk if name == "a" else small_disk.parent) / name
    assert runs.outcome("a") == runs.outcome("b")


def test_a_thread_of_tensorboard_whose_disk_is_full_is_heard_once(runs):
    """It fails a while before the run hears of it."""
    assert runs.finish("a", before=_fills_for_tensorboard) == 2
    (line,) = [line for line in runs.said("a").splitlines() if "space" in line or "Traceback" in line]
    folder = runs.folder("a") / "tensorboard"
    assert line == f"error: cannot write {folder}: No space left on device; make room, then continue the run"
    assert runs.finish("a") == runs.finish("b") == 0
    assert runs.outcome("a") == runs.outcome("b")


def _fills_for_tensorboard() -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    write, written = RecordWriter.write, []

    def full(writer, data):
        written.append(data)
        if len(written) > 50:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(writer, data)

    RecordWriter.write = full


@pytest.mark.parametrize(
    "command",
    [
        ("export", "{run}", "{disk}/out"),
        (
            "evaluate",
            "{run}",
            "--data",
            "{images}",
            "--out",
            "{disk}/out",
            "--probes",
            "knn",
            "--labels-per-class",
            "5",
        ),
        ("embed", "{run}", "{images}", "{disk}/out.npy"),
        ("data", "pack", "{images}", "{disk}/out"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_whose_disk_is_full(runs, small_disk, capfd, command, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(runs.root / "cache"))
    assert runs.finish("a", epochs=2) == 0
    images = runs.root / "images"
    for i in range(24, 60):
        np.save(images / "ab"[i % 2] / f"{i:02d}.npy", np.random.default_rng(i).gamma(2.0, 1.0, (20, 20)))
    _fill(small_disk)
    where = {"run": runs.folder("a"), "disk": small_disk, "images": images}
    assert cli.main([word.format(**where) for word in command]) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    assert [line for line in error.splitlines() if line.startswith("error: ") and "No space left" in line], error
    assert [path.name for path in small_disk.iterdir() if path.name != "filler" and not path.is_dir()] == []
    (small_disk / "filler").unlink()
    assert cli.main([word.format(**where) for word in command]) == 0
