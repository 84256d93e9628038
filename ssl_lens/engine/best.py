"""The backbone of the best epoch of a run, kept next to its checkpoints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.errors import InputError
from ssl_lens.files import read_json, remove_folder, whole_folder
from ssl_lens.runs.folder import writing

RECORD = "best.json"


class Kept(NamedTuple):
    """What is known of a backbone that was kept.

    Attributes:
        step: after which it was measured, counted from 0.
        epoch: the same in epochs.
        monitor: who measured it.
        worth: the higher the better.
    """

    step: int
    epoch: float
    monitor: str
    worth: float


class Best:
    """Keeps the backbone whose features are worth the most so far; of equals the first.

    The folder says itself what it holds, so that a run that is resumed goes on with it. It appears whole or not at all.

    Args:
        write: puts a backbone into a folder.
        monitor: who says what features are worth; what another one kept is not compared.
    """

    def __init__(self, folder: Path, write: Callable[[Encoder, Path], None], monitor: str) -> None:
        self.folder, self._write, self.monitor = folder, write, monitor
        self.kept = _read(folder, monitor)

    def offer(self, backbone: Encoder, step: int, epoch: float, worth: float) -> None:
        """Keeps this one if it is better; never one whose worth is not a number.

        Raises: InputError if it cannot be written, for lack of room.
        """
        if not worth > (-math.inf if self.kept is None else self.kept.worth):
            return
        kept = Kept(step, epoch, self.monitor, worth)
        with writing(self.folder):
            if os.path.lexists(self.folder):
                remove_folder(self.folder)
            with whole_folder(self.folder) as made:
                self._write(backbone, made)
                (made / RECORD).write_text(json.dumps(kept._asdict(), indent=2) + "\n", encoding="utf-8")
        self.kept = kept


def _read(folder: Path, monitor: str) -> Kept | None:
    """What lies in the folder; None if that is nothing whole, or another monitor's."""
    try:
        record = read_json(folder / RECORD)
        kept = Kept(int(record["step"]), float(record["epoch"]), str(record["monitor"]), float(record["worth"]))
    except (InputError, KeyError, TypeError, ValueError):
        return None
    return kept if kept.monitor == monitor else None
