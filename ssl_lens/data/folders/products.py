"""Folders below a set of images that hold what was made of it: runs, packs, exports, reports. They are not images."""

from __future__ import annotations

import os
from pathlib import Path

# By the files of which a folder of this kind holds all of one group, once it holds anything that could be an image.
_KINDS: dict[str, tuple[frozenset[str], ...]] = {
    "run": (
        frozenset({"recipe.yaml", "images.json"}),
        frozenset({"recipe.yaml", "backbone.json"}),
        frozenset({"recipe.yaml", "checkpoints"}),
    ),
    "pack": (frozenset({"images.npy", "manifest.json"}), frozenset({"images.sha256"})),
    "export": (frozenset({"config.json", "backbone.safetensors"}),),
    "report": (
        frozenset({"check.json", "contact_sheet.png"}),
        frozenset({"results.csv", "results.json"}),
    ),
}


def kind_of_product(folder: Path) -> str | None:
    """What a folder is that this package made: run, pack, export or report; None if it is none of these.

    Features that were computed in part lie in `NAME.parts`, next to the file NAME that they will become.
    """
    if folder.name.endswith((".npy.parts", ".parquet.parts")):
        return "embedding"
    try:
        names = frozenset(os.listdir(folder))
    except OSError:  # for whoever goes into it to report
        return None
    return next((kind for kind, groups in _KINDS.items() if any(group <= names for group in groups)), None)
