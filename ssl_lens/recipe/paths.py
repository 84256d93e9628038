"""What the paths in a recipe are relative to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATHS = ("path", "exclude", "probe")  # of the section `data`


def with_absolute_paths(tree: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's sections with the paths in `data` made absolute; relative ones are taken to start at `folder`.

    Addresses (`https://...`, `pipe:...`) and absolute paths stay as they are; patterns of shards are paths. Applied to
    a recipe's file with the file's folder, then, after the command line's overrides, with the working folder: so a
    saved recipe means the same from everywhere. Values that are no text are left to be refused by the recipe.
    """
    data = tree.get("data")
    if not isinstance(data, dict):
        return dict(tree)
    found = {key: data[key] for key in PATHS if isinstance(data.get(key), str) and data[key]}
    absolute = {key: path if _is_address(path) else os.path.abspath(folder / path) for key, path in found.items()}
    return {**tree, "data": {**data, **absolute}}


def _is_address(path: str) -> bool:
    return "://" in path or path.startswith("pipe:")
