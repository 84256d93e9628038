"""Checkpoints that are whole or absent: written aside, synced, summed, renamed; no pickled code inside."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class Trainable:
    """Everything whose state decides the next step."""

    student: nn.Module
    teacher: nn.Module
    criterion: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler | None  # fp16 only

    def modules(self) -> dict[str, nn.Module]:
        return {"student": self.student, "teacher": self.teacher, "criterion": self.criterion}


def save(folder: Path, trainable: Trainable, *, step: int, keep: int) -> Path:
    """Writes `folder/step_XXXXXXXX`, then removes all but the `keep` newest.

    A reader sees the checkpoint whole or not at all: the files are written to a temporary folder beside it and
    synced to disk, and the folder is renamed last.
    """
    target = folder / f"step_{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, module in trainable.modules().items():
        state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
        save_file(state, temporary / f"{name}.safetensors")
    torch.save(
        {
            "optimizer": trainable.optimizer.state_dict(),
            "scaler": trainable.scaler.state_dict() if trainable.scaler else None,
        },
        temporary / "optimizer.pt",
    )
    (temporary / "state.json").write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
    sums = {file.name: _checksum(file) for file in sorted(temporary.iterdir())}
    (temporary / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _sync(folder)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return target


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint of `folder` whose checksums hold; damaged ones are passed over with a warning."""
    for checkpoint in _newest_first(folder):
        problem = _damage(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning("checkpoint %s is damaged (%s); trying the one before", checkpoint, problem)
    return None


def load(checkpoint: Path, trainable: Trainable) -> int:
    """Restores everything in place; returns the step to go on with.

    Raises: InputError if the checkpoint belongs to another network.
    """
    for name, module in trainable.modules().items():
        load_into(module, load_file(checkpoint / f"{name}.safetensors"), source=checkpoint / f"{name}.safetensors")
    saved: dict[str, Any] = torch.load(checkpoint / "optimizer.pt", weights_only=True, map_location="cpu")
    trainable.optimizer.load_state_dict(saved["optimizer"])
    if trainable.scaler and saved["scaler"]:
        trainable.scaler.load_state_dict(saved["scaler"])
    return int(json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))["step"])


def load_into(module: nn.Module, state: dict[str, torch.Tensor], *, source: Path) -> None:
    """`load_state_dict`, strictly, with one line that says which keys and shapes differ.

    Raises: InputError if `state` is not of this network.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or extra or shapes:
        examples = [f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}" for key in shapes[:1]]
        examples += [f"lacks {key}" for key in missing[:1]] + [f"has {key}" for key in extra[:1]]
        raise InputError(
            f"{source} is a checkpoint of another network: {len(missing)} keys missing, {len(extra)} unknown, "
            f"{len(shapes)} of another shape ({'; '.join(examples)}); use the recipe that wrote it"
        )
    module.load_state_dict(state)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), reverse=True)


def _damage(checkpoint: Path) -> str | None:
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        wrong = [name for name, checksum in sums.items() if _checksum(checkpoint / name) != checksum]
    except (OSError, ValueError) as error:
        return str(error)
    return f"checksum of {wrong[0]} differs" if wrong else None


def _checksum(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
