"""What the paths in a recipe are relative to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATHS = {"data": ("path", "exclude", "probe"), "model": ("weights",)}  # keys of sections
PLACES = tuple(f"{section}.{key}" for section, keys in PATHS.items() for key in keys)
WORDS = ("pretrained",)  # of model.weights, not a path


def with_absolute_paths(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's sections with their paths made absolute; relative ones are taken to start at `folder`.

    `~` is the home folder. Addresses (`https://...`, `pipe:...`) and absolute paths stay as they are; patterns of
    shards are paths. Applied to a recipe's file with the file's folder, then, after the command line's overrides, with
    the working folder: so a saved recipe means the same from everywhere. Values that are not text are left to be
    refused by the recipe.
    """
    sections = dict(tree)
    for name, keys in PATHS.items():
        section = tree.get(name)
        if isinstance(section, dict):
            sections[name] = {key: _absolute(value, folder) if key in keys else value for key, value in section.items()}
    return sections


def _absolute(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path or path in WORDS or "://" in path or path.startswith("pipe:"):
        return path
    return os.path.abspath(folder / os.path.expanduser(path))
