"""Trained backbones that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "weights"  # of exports; how each was made is in docs/results.md


def shipped_names() -> tuple[str, ...]:
    """The names of all trained backbones in the package."""
    return tuple(sorted(path.name for path in FOLDER.iterdir() if path.is_dir()))


def is_shipped(name: Path | str) -> bool:
    """Whether this is such a name, and no file or folder here that is called alike."""
    return str(name) in shipped_names() and not Path(name).exists()


def folder_of(target: Path | str) -> Path:
    """The folder of a run or an export, which may be given by the name of one that is shipped."""
    return FOLDER / str(target) if is_shipped(target) else Path(target)
