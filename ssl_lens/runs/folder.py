"""The fixed layout of a run: what is written where."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_lens.errors import InputError
from ssl_lens.files import MOST_LISTING, check_regular, read_json, whole_file

logger = logging.getLogger(__name__)

_RESTARTED = "before_restart_"  # folders of what a run began anew had before
_OF_OTHERS = ("eval", "wandb")  # what evaluators and trackers write into the folder of a run


class RunFolder:
    """Paths of one run.

    recipe.yaml (resolved) · backbone.json · preprocess.json · environment.json ·
    images.json (shape, names or shards) · baselines.json (what the features are compared with) · metrics.jsonl ·
    tensorboard/ · plots/ · checkpoints/ · best/ (the backbone of the best epoch, as an export) ·
    quarantine.tsv (unreadable images) · skipped_steps.jsonl (not finite) · status.json · .lock ·
    before_restart_1/ (of a run begun anew)
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.recipe = self.root / "recipe.yaml"
        self.backbone = self.root / "backbone.json"
        self.preprocess = self.root / "preprocess.json"
        self.environment = self.root / "environment.json"
        self.images = self.root / "images.json"
        self.metrics = self.root / "metrics.jsonl"
        self.baselines = self.root / "baselines.json"
        self.plots = self.root / "plots"
        self.checkpoints = self.root / "checkpoints"
        self.best = self.root / "best"
        self.quarantine = self.root / "quarantine.tsv"
        self.skipped_steps = self.root / "skipped_steps.jsonl"
        self.status = self.root / "status.json"
        self.tensorboard = self.root / "tensorboard"
        self.lock = self.root / ".lock"

    def refuse_existing(self) -> None:
        """Raises InputError if the folder holds a run, or something else.

        A start that was refused, for its images say, leaves a lock, a status and a quarantine file.
        """
        if self.root.exists() and not self.root.is_dir():
            raise InputError(f"folder={self.root} is a file; give another, folder=NEW")
        if self.root.is_dir() and set(self.root.iterdir()) - {self.quarantine, self.status, self.lock}:
            raise InputError(
                f"folder={self.root} exists already; set resume=auto to continue it, resume=restart to begin anew, or "
                "give a new one, folder=NEW"
            )

    def put_aside(self) -> Path | None:
        """Moves what a run and its evaluations left into a folder within its folder, which it returns; None: nothing.

        Whatever else lies there, such as somebody's images, stays where it is.

        Raises: OSError if it cannot.
        """
        own = (
            *(self.recipe, self.backbone, self.preprocess, self.environment, self.images, self.metrics, self.plots),
            *(self.checkpoints, self.quarantine, self.skipped_steps, self.status, self.tensorboard),
            *(self.baselines, self.best),
            *(self.root / name for name in _OF_OTHERS),
        )
        there = [path for path in own if os.path.lexists(path)]
        if not there:
            return None
        before = next(
            path for i in itertools.count(1) if not (path := self.root / f"{_RESTARTED}{i}").exists()
        )  # fmt: skip
        before.mkdir()
        for path in there:
            path.rename(before / path.name)
        return before

    def refuse_other_images(self, images: dict[str, Any]) -> None:
        """Raises InputError if the run was made on other images than these (see `write_head`)."""
        before = read_json(self.images, most=MOST_LISTING) if self.images.exists() else images
        if before == images:
            return
        given = f"folder={self.root} holds a run on {_described(before)}, now given are"
        if {**before, "pixels": None} == {**images, "pixels": None}:
            raise InputError(f"{given} the same names with other pixels; restore the files, or give a new folder=NEW")
        raise InputError(f"{given} {_described(images)}, not the same; restore them, or give a new folder=NEW")

    def write_head(
        self,
        recipe: str,
        *,
        backbone: dict[str, Any],
        preprocess: dict[str, Any],
        images: dict[str, Any],
        environment: dict[str, Any],
    ) -> None:
        """Writes what describes the run: each file whole, and only where it differs.

        Args:
            recipe: resolved, as YAML.
            backbone: its `seed`, and the configuration of the `backbone` that it gives weights to.
            images: `shape` [C, H, W] of the raw images, and their `names` and the hash of their `pixels`; or, of
                streamed ones, the number in each of the `shards`.
            environment: see `runs.environment`.

        Raises: OSError if it cannot.
        """
        self.plots.mkdir(parents=True, exist_ok=True)
        for file, content in (
            (self.images, json.dumps(images, indent=0) + "\n"),
            (self.backbone, json.dumps(backbone, indent=2) + "\n"),
            (self.preprocess, json.dumps(preprocess, indent=2) + "\n"),
            (self.environment, json.dumps(environment, indent=2) + "\n"),
            (self.recipe, recipe),
        ):
            if not file.is_file() or file.read_bytes() != content.encode():
                with whole_file(file) as temporary:
                    temporary.write_text(content, encoding="utf-8")

    def rewind(self, step: int) -> None:
        """Drops what was measured and skipped at or after `step`, which a resumed run writes again, and torn lines.

        Raises: InputError if one of the files is none; OSError if it cannot.
        """
        for file in (self.metrics, self.skipped_steps):
            if not os.path.lexists(file):
                continue
            check_regular(file)  # or lines that are added to it may wait for ever
            before = file.read_bytes()
            kept = "".join(json.dumps(record) + "\n" for record in records(file) if record["step"] < step).encode()
            if kept != before:
                with whole_file(file) as temporary:
                    temporary.write_bytes(kept)

    def append(self, file: Path, record: dict[str, Any]) -> None:
        """Adds one JSON line to `file`.

        Raises: OSError if it cannot.
        """
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(record) + "\n")


@contextlib.contextmanager
def writing(place: Path) -> Iterator[None]:
    """While entered, a `place` of a run that cannot be written, for lack of room, is one line.

    Raises: InputError in the place of OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {place}: {error.strerror or error}; make room, then continue the run"
        ) from error


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON records that have a `step`; torn lines are passed over."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    yield record


def _described(images: dict[str, Any]) -> str:
    names, shards = images.get("names"), images.get("shards")
    if isinstance(names, list):
        return f"{len(names)} images of shape {images.get('shape')}"
    if isinstance(shards, dict) and all(isinstance(count, int) for count in shards.values()):
        return f"{sum(shards.values())} images of shape {images.get('shape')} in {len(shards)} shards"
    return "what nothing describes"
