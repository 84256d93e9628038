"""Checkpoints that are whole or absent: written aside, synced, summed, renamed; no pickled code inside."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from ssl_lens.errors import InputError

logger = logging.getLogger(__name__)

METHOD, OPTIMIZER, STATE, CHECKSUMS = "method.safetensors", "optimizer.pt", "state.json", "checksums.json"


def save(
    folder: Path,
    method: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
    *,
    backbone: nn.Module,
    step: int,
    keep: int,
) -> Path:
    """Writes `folder/step_XXXXXXXX`, then removes all but the `keep` newest.

    A reader sees the checkpoint whole or not at all: the files are written to a temporary folder next to it and
    synced to disk, and the folder is renamed last.

    Args:
        method, optimizer, scaler: everything whose state decides the next step; the scaler of fp16.
        backbone: the part of `method` that is kept, whose place among the weights is noted.
        step: steps that are done.
    """
    target = folder / f"step_{step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in method.state_dict().items()}, temporary / METHOD
    )
    states = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
    torch.save(states, temporary / OPTIMIZER)
    state = {"step": step, "backbone": _prefix(method, backbone)}
    (temporary / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
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


def load(checkpoint: Path, method: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None) -> int:
    """Restores everything in place; returns the step to go on with.

    Raises: InputError if the checkpoint belongs to another network.
    """
    load_into(method, load_file(checkpoint / METHOD), source=checkpoint / METHOD)
    saved: dict[str, Any] = torch.load(checkpoint / OPTIMIZER, weights_only=True, map_location="cpu")
    optimizer.load_state_dict(saved["optimizer"])
    if scaler and saved["scaler"]:
        scaler.load_state_dict(saved["scaler"])
    return int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["step"])


def backbone_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state dict of the backbone that a checkpoint keeps; no other weights are read."""
    prefix = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["backbone"]
    with safe_open(checkpoint / METHOD, framework="pt") as weights:
        return {key.removeprefix(prefix): weights.get_tensor(key) for key in weights.keys() if key.startswith(prefix)}  # noqa: SIM118


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


def _prefix(method: nn.Module, backbone: nn.Module) -> str:
    (name,) = (name for name, module in method.named_modules() if module is backbone)
    return f"{name}."


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
