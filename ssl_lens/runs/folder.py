"""The fixed layout of a run: what is written where."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ssl_lens.errors import InputError

REPORTED_PACKAGES = ("ssl_lens", "torch", "timm", "lightly", "e2cnn", "accelerate", "numpy", "lenstronomy")


class RunFolder:
    """Paths of one run.

    recipe.yaml (resolved) · backbone.json · preprocess.json · environment.json ·
    images.json (shape, names or shards) · metrics.jsonl · tensorboard/ · plots/ · checkpoints/ ·
    quarantine.tsv (unreadable images) · skipped_steps.jsonl (not finite)
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.yaml"
        self.backbone = self.root / "backbone.json"
        self.preprocess = self.root / "preprocess.json"
        self.environment = self.root / "environment.json"
        self.images = self.root / "images.json"
        self.metrics = self.root / "metrics.jsonl"
        self.plots = self.root / "plots"
        self.checkpoints = self.root / "checkpoints"
        self.quarantine = self.root / "quarantine.tsv"
        self.skipped_steps = self.root / "skipped_steps.jsonl"

    def refuse_existing(self, *, resume: bool) -> None:
        """Raises InputError if the folder holds something and `resume` was not asked for.

        A quarantine file alone is what a start leaves that was refused for its images.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"folder={self.root} is a file; give another, folder=NEW")
        if not resume and self.root.is_dir() and set(self.root.iterdir()) - {self.quarantine}:
            raise InputError(
                f"folder={self.root} exists already; set resume=auto to continue it, or give a new one, folder=NEW"
            )

    def refuse_other_images(self, images: dict[str, Any]) -> None:
        """Raises InputError if the run was made on other images than these (see `write_head`)."""
        if self.images.is_file() and (before := json.loads(self.images.read_text(encoding="utf-8"))) != images:
            raise InputError(
                f"folder={self.root} holds a run on {_described(before)}, now given are {_described(images)}, "
                "not the same; restore them, or give a new folder=NEW"
            )

    def write_head(
        self, recipe: str, *, backbone: dict[str, Any], preprocess: dict[str, Any], images: dict[str, Any]
    ) -> None:
        """Writes what describes the run.

        Args:
            recipe: resolved, as YAML.
            backbone: its `seed`, and the configuration of the `backbone` that it gives weights to.
            images: `shape` [C, H, W] of the raw images, and their `names` or, of streamed ones, the number in each of
                the `shards`.
        """
        self.plots.mkdir(parents=True, exist_ok=True)
        self.images.write_text(json.dumps(images, indent=0) + "\n", encoding="utf-8")
        self.recipe.write_text(recipe, encoding="utf-8")
        for file, content in (
            (self.backbone, backbone),
            (self.preprocess, preprocess),
            (self.environment, environment()),
        ):
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def rewind_metrics(self, step: int) -> None:
        """Drops metrics of steps at or after `step`, which a resumed run writes again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
        self.metrics.write_text("".join(kept), encoding="utf-8")

    def append(self, file: Path, record: dict[str, Any]) -> None:
        """Adds one JSON line to `file`."""
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")


def _described(images: dict[str, Any]) -> str:
    if "names" in images:
        return f"{len(images['names'])} images of shape {images['shape']}"
    counts = images["shards"].values()
    return f"{sum(counts)} images of shape {images['shape']} in {len(counts)} shards"


def environment() -> dict[str, Any]:
    """What ran where: versions, processors, command."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _installed(name) for name in REPORTED_PACKAGES},
    }


def _installed(package: str) -> str | None:
    """The version of a package; None for one of an extra that is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
