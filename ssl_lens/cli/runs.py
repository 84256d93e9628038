"""The command `ssl-lens runs`: what lies in the folders of runs, however far they came."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ssl_lens.cli.arguments import path_argument
from ssl_lens.errors import InputError

DEEPEST = 3  # folders below the given one, as in runs/lenses_cpu/seed0
HEADER = ("run", "state", "step", "loss", "kNN", "written")


class RunState(NamedTuple):
    """What can be read of a run.

    Attributes:
        state: running; or how it was left: finished, stopped, failed, or killed, when it could not say; unfinished if
            nothing says.
        finished_steps: those that a resumed run would not do again.
        total_steps: None while no metrics say.
        loss, probe_knn: the last that were measured; None: not measured.
        age_s: seconds since something was last written.
        note: what could not be read, or why the run failed.
        resume: the command to go on with; None for a finished run.
    """

    folder: Path
    state: str
    finished_steps: int
    total_steps: int | None
    loss: float | None
    probe_knn: float | None
    age_s: float
    note: str
    resume: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=path_argument,
        default=Path("runs"),
        help="of a run, or of several (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Prints a line for every run, and below it how to go on with one that is not finished."""
    states = [read_state(folder) for folder in run_folders(options.folder)]
    if not states:
        raise InputError(f"no runs in {options.folder}; give the folder that `ssl-lens pretrain` wrote to")
    rows = [HEADER, *map(_row, states)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, state in zip(rows, [None, *states], strict=True):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        if state and state.note:
            print(f"  {state.note}")
        if state and state.resume:
            print(f"  resume: {state.resume}")


def run_folders(root: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """Folders of runs at and below `root`, in alphabetical order."""
    if (root / "recipe.yaml").is_file() and ((root / "checkpoints").is_dir() or (root / "metrics.jsonl").is_file()):
        yield root
    elif root.is_dir() and depth:
        for entry in sorted(root.iterdir()):
            if entry.is_dir() and not entry.name.startswith("."):
                yield from run_folders(entry, depth - 1)


def read_state(folder: Path) -> RunState:
    """Reads a run's recipe, metrics and checkpoints; a line that is not whole, or a damaged file, is passed over."""
    from ssl_lens.recipe.recipe import load_recipe
    from ssl_lens.runs.checkpoint import newest_step
    from ssl_lens.runs.folder import RunFolder, records
    from ssl_lens.runs.lock import is_locked
    from ssl_lens.runs.status import read_status

    lies = RunFolder(folder)
    metrics = [record for record in records(lies.metrics) if record.get("epoch")]
    done = newest_step(lies.checkpoints) or 0
    status = read_status(lies.status) or {}
    epochs, note, elsewhere = None, "", False
    try:
        recipe = load_recipe(folder / "recipe.yaml")
        epochs, elsewhere = recipe.optim.epochs, Path(recipe.run.folder).resolve() != folder.resolve()
    except (InputError, OSError, ValueError) as error:
        note = f"its recipe cannot be read: {error}"
    total = None
    if metrics and epochs is not None:
        last = metrics[-1]
        total = round((last["step"] + 1) / last["epoch"] * epochs)
    if note == "" and status.get("state") == "failed":
        note = f"failed: {status.get('reason')}"
    state = _state(status, is_locked(lies.lock), total is not None and done >= total)
    resume = f"ssl-lens pretrain {folder / 'recipe.yaml'} run.resume=auto"
    resume += f" run.folder={folder}" if elsewhere else ""
    return RunState(
        folder,
        state,
        done,
        total,
        _last(metrics, "loss"),
        _last(metrics, "probe_knn"),
        time.time() - _last_written(folder),
        note,
        None if state in ("finished", "running") else resume,
    )


def _state(status: dict[str, Any], locked: bool, whole: bool) -> str:
    if locked:
        return "running"
    if whole:
        return "finished"
    state = status.get("state")
    if state == "running":
        return "killed"
    return state if state in ("stopped", "failed") else "unfinished"


def _last(metrics: list[dict[str, Any]], key: str) -> float | None:
    return next((float(record[key]) for record in reversed(metrics) if key in record), None)


def _last_written(folder: Path) -> float:
    files = [folder / "recipe.yaml", folder / "metrics.jsonl", *folder.glob("checkpoints/step_*")]
    return max(os.stat(file).st_mtime for file in files if file.exists())


def _row(state: RunState) -> tuple[str, ...]:
    total = "?" if state.total_steps is None else f"{state.total_steps:,}"
    numbers = ("-" if value is None else f"{value:.3f}" for value in (state.loss, state.probe_knn))
    return str(state.folder), state.state, f"{state.finished_steps:,} of {total}", *numbers, _ago(state.age_s)


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s ago"
    return "just now"
