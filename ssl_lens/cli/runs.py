"""The command `ssl-lens runs`: what lies in the folders of runs, however far they came."""

from __future__ import annotations

import argparse
import json
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
        finished_steps: those that a resumed run would not do again.
        total_steps: None while no metrics say.
        loss, probe_knn: the last that were measured; None: not measured.
        age_s: seconds since something was last written.
        note: what could not be read.
        resume: the command to go on with; None for a finished run.
    """

    folder: Path
    finished_steps: int
    total_steps: int | None
    loss: float | None
    probe_knn: float | None
    age_s: float
    note: str
    resume: str | None

    @property
    def state(self) -> str:
        return "unfinished" if self.resume else "finished"


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

    metrics = list(_records(folder / "metrics.jsonl"))
    checkpoints = _checkpointed_steps(folder / "checkpoints")
    done = max(checkpoints, default=0)
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
    resume = f"ssl-lens pretrain {folder / 'recipe.yaml'} run.resume=auto"
    resume += f" run.folder={folder}" if elsewhere else ""
    return RunState(
        folder,
        done,
        total,
        _last(metrics, "loss"),
        _last(metrics, "probe_knn"),
        time.time() - _last_written(folder),
        note,
        None if total is not None and done >= total else resume,
    )


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("epoch") and "step" in record:
            yield record


def _checkpointed_steps(folder: Path) -> list[int]:
    steps = []
    for state in folder.glob("step_*/state.json"):
        try:
            steps.append(int(json.loads(state.read_text(encoding="utf-8"))["step"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return steps


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
