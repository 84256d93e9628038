"""What a run that is continued takes over, says and refuses."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.recipe.compose import Pretraining


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_goes_on(
    run: Callable[..., Pretraining], caplog: pytest.LogCaptureFixture
) -> None:
    whole = run("a")
    checkpoints = whole.folder.checkpoints
    flip(checkpoints / "step_00000006" / "method.safetensors")
    resumed = run("a", "run.resume=auto")
    assert resumed.start == 3
    assert "step_00000006 is damaged (checksum of method.safetensors differs): moved to damaged_step_" in caplog.text
    names = sorted(path.name for path in checkpoints.iterdir())
    assert names == ["damaged_step_00000006", "step_00000003", "step_00000006"]
    for key, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[key])


def test_with_no_whole_checkpoint_it_stops_and_restart_loses_nothing(run: Callable[..., Pretraining]) -> None:
    folder = run("a").folder
    for checkpoint in folder.checkpoints.iterdir():
        flip(checkpoint / "optimizer.pt")
    metrics = folder.metrics.read_bytes()
    with pytest.raises(InputError, match=r"no checkpoint in .* is whole: step_00000006 .*; step_00000003 .*restart"):
        run("a", "run.resume=auto")
    assert folder.metrics.read_bytes() == metrics
    assert json.loads(folder.status.read_text())["state"] == "failed"
    assert run("a", "run.resume=restart").start == 0
    before = folder.root / "before_restart_1"
    assert (before / "metrics.jsonl").read_bytes() == metrics
    assert sorted(path.name for path in (before / "checkpoints").iterdir()) == ["step_00000003", "step_00000006"]
    assert len(folder.metrics.read_text().splitlines()) == 6


@pytest.mark.parametrize("resume", ["auto", "restart"])
def test_the_folder_of_the_images_is_left_as_it_was(
    run: Callable[..., Pretraining], image_folder: Path, resume: str
) -> None:
    before = sorted(image_folder.rglob("*"))
    with pytest.raises(InputError, match=r"run.folder=.*/images is the folder of the images; give another"):
        run("a", f"run.folder={image_folder}", f"run.resume={resume}")
    assert sorted(image_folder.rglob("*")) == before


def test_restart_moves_nothing_but_the_run(
    run: Callable[..., Pretraining], image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Images and notes may lie in the folder of a run."""
    folder = tmp_path / "a"
    shutil.move(image_folder, folder / "images")
    (folder / "notes.txt").write_text("mine")
    caplog.set_level(logging.INFO)
    place = f"data.path={folder / 'images'}"
    assert run("a", place, "run.resume=restart").start == 0
    assert not (folder / "before_restart_1").exists()
    (folder / "eval").mkdir()
    assert run("a", place, "run.resume=restart").start == 0
    assert f"what was in {folder} is now in {folder / 'before_restart_1'}" in caplog.text
    assert {"eval", "checkpoints", "tensorboard", "best", "baselines.json"} <= {
        path.name for path in (folder / "before_restart_1").iterdir()
    }
    assert not (folder / "eval").exists()
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("resume", ["never", "auto", "restart"])
@pytest.mark.parametrize("place", ["file", "file/run", "/proc/run", "file/run/deeper"])
def test_a_folder_that_cannot_be_is_one_line(
    run: Callable[..., Pretraining], tmp_path: Path, place: str, resume: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"run.folder={tmp_path / place} (is a file|cannot be written .*); "):
        run("a", f"run.folder={tmp_path / place}", f"run.resume={resume}")


def test_checkpoints_that_are_gone_are_missed(run: Callable[..., Pretraining]) -> None:
    shutil.rmtree(run("a").folder.checkpoints)
    with pytest.raises(InputError, match="had a checkpoint of step 6, which is gone; restore it, or set run.resume=re"):
        run("a", "run.resume=auto")


def test_torn_lines_and_head_files_end_no_run(run: Callable[..., Pretraining]) -> None:
    """As a kill or a power cut leaves them."""
    folder = run("a").folder
    whole = folder.metrics.read_text()
    shutil.rmtree(folder.checkpoints / "step_00000006")
    folder.metrics.write_bytes(whole.encode()[:-20] + b"\n" + b"\0" * 100 + b'\n[1]\n{"ste')
    (folder.root / ".recipe.yaml.123").write_text("half")
    folder.environment.unlink()
    folder.status.write_bytes(b"\0\0\0")
    run("a", "run.resume=auto")
    steps = [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()]
    assert steps == list(range(6))
    assert not (folder.root / ".recipe.yaml.123").exists()
    assert json.loads(folder.status.read_text())["state"] == "finished"


def test_a_damaged_head_file_is_one_line(run: Callable[..., Pretraining]) -> None:
    folder = run("a").folder
    for name in ("recipe.yaml", "images.json"):
        whole = (folder.root / name).read_bytes()
        for content in (b"", b"\0" * 50, b"{", b"[1]"):
            (folder.root / name).write_bytes(content)
            with pytest.raises(InputError, match=name):
                run("a", "run.resume=auto")
        (folder.root / name).write_bytes(whole)
    assert run("a", "run.resume=auto").start == 6


def test_what_lines_are_added_to_is_not_waited_for(run: Callable[..., Pretraining]) -> None:
    folder = run("a").folder
    for file in (folder.metrics, folder.skipped_steps, folder.lock):
        file.unlink(missing_ok=True)
        os.mkfifo(file)
        with pytest.raises(InputError, match=f"{file} is not a regular file"):
            run("a", "run.resume=auto", "optim.epochs=3")
        file.unlink()


def test_only_what_differs_is_written_again(run: Callable[..., Pretraining]) -> None:
    folder = run("a").folder
    before = {file: file.stat().st_ino for file in (folder.recipe, folder.images, folder.preprocess, folder.backbone)}
    recipe = folder.recipe.read_text()
    run("a", "run.resume=auto")
    assert {file: file.stat().st_ino for file in before if file != folder.recipe} == {
        file: inode for file, inode in before.items() if file != folder.recipe
    }
    assert folder.recipe.read_text() == recipe.replace("resume: never", "resume: auto")


def test_other_pixels_of_the_same_names_are_refused(run: Callable[..., Pretraining], image_folder: Path) -> None:
    run("a")
    file = next(image_folder.rglob("*.npy"))
    np.save(file, np.load(file) + 1)
    with pytest.raises(InputError, match="now given are the same names with other pixels; restore the files"):
        run("a", "run.resume=auto")


def test_threads_are_kept_and_another_torch_is_said(
    run: Callable[..., Pretraining], caplog: pytest.LogCaptureFixture
) -> None:
    threads = torch.get_num_threads()
    try:
        folder = run("a", "run.cpu_threads=2").folder
        assert json.loads(folder.environment.read_text())["arithmetic"]["cpu_threads"] == 2
        caplog.set_level(logging.INFO)
        run("a", "run.resume=auto", "run.cpu_threads=null")
        assert torch.get_num_threads() == 2
        assert "bit-exact" not in caplog.text
        environment = json.loads(folder.environment.read_text())
        environment["arithmetic"] |= {"torch": "1.0", "processes": 4}
        folder.environment.write_text(json.dumps(environment))
        run("a", "run.resume=auto", "run.cpu_threads=1")
        said = f"not bit-exact from here on: torch 1.0 -> {torch.__version__}, processes 4 -> 1, cpu_threads 2 -> 1"
        assert said in caplog.text
    finally:
        torch.set_num_threads(threads)


def test_more_epochs_go_on_and_say_what_becomes_of_the_schedules(
    run: Callable[..., Pretraining], caplog: pytest.LogCaptureFixture
) -> None:
    run("a", "method.ema_momentum=auto")
    caplog.set_level(logging.INFO)
    longer = run("a", "run.resume=auto", "optim.epochs=4", "method.ema_momentum=auto")
    assert longer.start == 6
    assert longer.schedule.total_steps == 12
    last, following = longer.schedule.at(5), longer.schedule.at(6)
    assert longer.schedule.at(6).lr > 1e-4
    assert "optim.epochs: 2 -> 4; from step 6 on the schedules are those of 12 steps: lr " in caplog.text
    assert f"-> {following.lr:.3g}" in caplog.text
    assert last.lr > following.lr
    steps = [json.loads(line)["step"] for line in longer.folder.metrics.read_text().splitlines()]
    assert steps == list(range(12))
    with pytest.raises(InputError, match="optim.epochs=3 ends after step 9, but the run is at step 12; set optim.ep"):
        run("a", "run.resume=auto", "optim.epochs=3", "method.ema_momentum=auto")


def test_skipped_steps_are_counted_over_a_resume(
    run: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of every three: never three in a row; the eleventh of a hundred ends the run, wherever it was stopped."""
    make = Pretraining.views_at

    def poisoned(self: Pretraining, step: int) -> object:
        for views in make(self, step):
            if step % 3:
                views.global_crops[:] = float("nan")
            yield views

    monkeypatch.setattr(Pretraining, "views_at", poisoned)
    folder = run("a", "optim.epochs=4").folder  # 8 of 12
    assert len(folder.skipped_steps.read_text().splitlines()) == 8
    with pytest.raises(InputError, match="11 of the last 100 steps, up to 17, were not finite, nothing of them was"):
        run("a", "optim.epochs=8", "run.resume=auto")
    assert [json.loads(line)["step"] for line in folder.skipped_steps.read_text().splitlines()][-1] == 16
