"""`ssl-lens runs`: how far runs are, whatever of them is there."""

import json
import os
from pathlib import Path

import pytest
from tiny_run import write_run

from ssl_lens.cli import main as cli
from ssl_lens.cli.runs import read_state, run_folders
from ssl_lens.runs.lock import locked


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A checkpoint after 3 of 40 steps (20 epochs of 2); metrics of 4."""
    (tmp_path / "runs").mkdir()
    folder = write_run(tmp_path / "runs" / "tiny")
    add_metrics(folder, {"step": 1, "epoch": 1.0, "loss": 2.5, "probe_knn": 0.75}, {"step": 3, "epoch": 2.0, "loss": 2})
    return folder


def add_metrics(folder: Path, *records: dict) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_shows_step_loss_probe_and_how_to_resume(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_folder.parents[1])
    assert cli.main(["runs"]) == 0
    header, row, resume = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "step", "loss", "kNN", "written"]
    assert row.split() == ["runs/tiny", "unfinished", "3", "of", "40", "2.000", "0.750", "just", "now"]
    assert resume == "  resume: ssl-lens pretrain runs/tiny/recipe.yaml run.resume=auto"


def test_a_run_whose_last_step_is_saved_is_finished(run_folder: Path) -> None:
    saved = run_folder / "checkpoints" / "step_00000003"
    saved = saved.rename(saved.with_name("step_00000040"))
    assert read_state(run_folder).state == "finished"
    assert read_state(run_folder).resume is None
    saved.rename(saved.with_name("step_00000039"))
    assert read_state(run_folder).state == "unfinished"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"state": "stopped"}, "stopped"),
        ({"state": "running"}, "killed"),
        ({"state": "failed", "reason": "No space left on device"}, "failed"),
        ({"state": "enchanted"}, "unfinished"),
        ([], "unfinished"),
    ],
)
def test_how_a_run_was_left(run_folder: Path, capsys: pytest.CaptureFixture[str], status: object, state: str) -> None:
    (run_folder / "status.json").write_text(json.dumps(status))
    assert read_state(run_folder).state == state
    with locked(run_folder / ".lock"):
        assert read_state(run_folder).state == "running"
    cli.main(["runs", str(run_folder)])
    assert ("failed: No space left on device" in capsys.readouterr().out) == (state == "failed")


def test_a_line_that_is_cut_off_is_passed_over(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "epoch": 3.0, "lo')
    assert read_state(run_folder)[2:6] == (3, 40, 2.0, 0.75)


def test_a_run_that_has_only_begun(run_folder: Path) -> None:
    (run_folder / "metrics.jsonl").unlink()
    assert read_state(run_folder)[2:6] == (3, None, None, None)
    assert read_state(run_folder).state == "unfinished"


def test_a_damaged_checkpoint_and_a_recipe_of_another_version(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_folder / "checkpoints" / "step_00000003").rename(run_folder / "checkpoints" / "damaged_step_00000003")
    (run_folder / "recipe.yaml").write_text("optimizer: {epochs: 3}")
    assert cli.main(["runs", str(run_folder)]) == 0
    _, row, note, _ = capsys.readouterr().out.splitlines()
    assert "unfinished  0 of ?" in row
    assert note.startswith("  its recipe cannot be read: ")
    assert "unknown key optimizer" in note


def test_a_run_that_was_moved_resumes_where_it_is(run_folder: Path) -> None:
    moved = run_folder.rename(run_folder.parent / "moved")
    assert read_state(moved).resume.endswith(f" run.folder={moved}")


def test_runs_lie_at_any_of_three_depths_and_not_in_each_other(run_folder: Path) -> None:
    runs = run_folder.parent
    deep = runs / "sweep" / "seed0"
    (deep / "checkpoints").mkdir(parents=True)
    (deep / "recipe.yaml").write_text("seed: 0")
    inside = run_folder / "eval" / "other"
    (inside / "checkpoints").mkdir(parents=True)
    (inside / "recipe.yaml").write_text("seed: 0")
    (runs / "lenses").mkdir()
    (runs / ".hidden").mkdir()
    assert list(run_folders(runs)) == [deep, run_folder]
    assert list(run_folders(run_folder)) == [run_folder]
    assert list(run_folders(runs / "lenses")) == []


def test_when_it_was_written(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in [run_folder / "recipe.yaml", run_folder / "metrics.jsonl", *run_folder.glob("checkpoints/step_*")]:
        os.utime(file, (0, os.stat(file).st_mtime - 3 * 3600))
    cli.main(["runs", str(run_folder)])
    assert capsys.readouterr().out.splitlines()[1].endswith("3 hours ago")


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: no runs in {tmp_path}; give the folder")
