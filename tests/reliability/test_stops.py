"""Stopped at any step, or killed at any time, a run goes on as if it had not been."""

import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from ssl_lens.recipe import compose
from ssl_lens.runs import checkpoint

STEPS = 42  # 14 epochs of 3


PARTS = 10  # of the long tests, so that several processes share them


@pytest.mark.parametrize(
    "points",
    [(7,), *(pytest.param(range(part, STEPS, PARTS), marks=pytest.mark.reliability) for part in range(1, PARTS + 1))],
)
def test_stopped_after_any_step_it_goes_on_bit_exactly(runs, whole, points):
    """Weights, momenta and every line of metrics; each point in a run of its own."""
    for point in points:
        assert runs.finish("stopped", before=_StopsAfter(point)) == 128 + signal.SIGTERM
        assert (runs.status("stopped")["state"], runs.status("stopped")["step"]) == ("stopped", point)
        assert runs.finish("stopped") == 0
        assert runs.outcome("stopped") == whole[0]
        assert runs.leftovers("stopped") == []
        runs.folder("stopped").rename(runs.folder(f"stopped_{point}"))


class _StopsAfter:
    """Sends the run SIGTERM, which it sees in the step that it is in."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self) -> None:
        views_at = compose.Pretraining.views_at

        def at(run, step):
            if step == self.step - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return views_at(run, step)

        compose.Pretraining.views_at = at


@pytest.mark.parametrize(
    ("kills", "starts", "seed"),
    [(1, 2, 0), *(pytest.param(60 // PARTS, 5, part, marks=pytest.mark.reliability) for part in range(PARTS))],
)
def test_killed_at_any_time_it_loses_nothing(runs, whole, kills, starts, seed):
    """kill -9 in start-up, training and saving; every start goes on, and the end is that of a run left alone."""
    outcome, seconds = whole
    rng = random.Random(seed)
    killed, rounds = 0, 0
    while killed < kills:
        name = f"killed_{rounds}"
        for _ in range(starts):
            process = runs.start(name)
            process.join(rng.uniform(0, seconds))
            killed += process.exitcode is None
            process.kill()
            process.join()
        assert runs.finish(name) == 0, runs.said(name)
        assert runs.outcome(name) == outcome
        assert runs.leftovers(name) == []
        assert len(list((runs.folder(name) / "checkpoints").iterdir())) == 2
        rounds += 1


@pytest.mark.parametrize("write", ["whole", "in place"])
def test_killed_while_it_saves_the_checkpoint_before_is_the_newest(runs, write):
    """The control, which writes in place, leaves a half as the newest."""
    process = runs.start("a", before=_DiesInTheThirdSave(write))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    found = checkpoint.find_checkpoints(runs.folder("a") / "checkpoints")
    assert [path.name for path in found.whole] == ["step_00000006", "step_00000003"]
    assert [path.name for path in found.damaged] == ([] if write == "whole" else ["step_00000009"])
    if write == "whole":
        assert runs.finish("a") == runs.finish("b") == 0
        assert runs.outcome("a") == runs.outcome("b")
        assert runs.leftovers("a") == []


def test_killed_while_it_removes_an_old_checkpoint_no_part_of_it_stays(runs):
    """In the last save, behind which nothing is left to do but to clear up."""
    process = runs.start("a", epochs=3, before=_dies_in_the_first_removal)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(path.name[:5] for path in (runs.folder("a") / "checkpoints").iterdir()) == [".maki", "step_", "step_"]
    assert runs.finish("a", epochs=3) == 0
    assert "damaged" not in runs.said("a")
    assert runs.leftovers("a") == []
    assert len(list((runs.folder("a") / "checkpoints").iterdir())) == 2


def _dies_in_the_first_removal() -> None:
    remove = os.unlink

    def dying(path, **where):
        remove(path, **where)
        if str(path).endswith("optimizer.pt"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.unlink = dying


class _DiesInTheThirdSave:
    def __init__(self, write: str) -> None:
        self.write = write

    def __call__(self) -> None:
        saves, save_file = [], checkpoint.save_file

        def dying(tensors, path):
            saves.append(path)
            if len(saves) == 5:  # two files in each
                Path(path).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            save_file(tensors, path)

        checkpoint.save_file = dying
        if self.write == "in place":
            checkpoint.whole_folder, checkpoint.remove_folder = _in_place, lambda folder: None


@contextlib.contextmanager
def _in_place(path):
    path.mkdir(parents=True)
    yield path
