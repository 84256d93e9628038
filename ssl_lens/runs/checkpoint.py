"""Checkpoints that are whole or absent: written aside, synced, summed, renamed; no pickled code inside."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from ssl_lens.errors import InputError
from ssl_lens.files import check_regular, read_json, remove_abandoned, remove_folder, whole_folder

METHOD, OPTIMIZER, OBSERVED, STATE = FILES = (
    "method.safetensors",
    "optimizer.pt",
    "observed.safetensors",
    "state.json",
)
CHECKSUMS = "checksums.json"
logger = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})")


class Found(NamedTuple):
    """What a folder of checkpoints holds, each newest first: whole ones, and damaged ones with what is wrong."""

    whole: list[Path]
    damaged: dict[Path, str]

    def described(self) -> str:
        """The damaged ones by name, for a message."""
        return "; ".join(f"{path.name} ({problem})" for path, problem in self.damaged.items())


def save(
    folder: Path,
    method: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
    *,
    backbone: nn.Module,
    observed: Mapping[str, torch.Tensor],
    step: int,
    keep: int,
) -> Path:
    """Writes `folder/step_XXXXXXXX`, then removes all but the `keep` newest.

    A reader sees the checkpoint whole or not at all: the files are written to a temporary folder next to it and
    synced to disk, and the folder is renamed last. What a process that was killed left half written is removed. Folders
    of other names are left alone.

    Args:
        method, optimizer, scaler: everything whose state decides the next step; the scaler of fp16.
        backbone: the part of `method` that is kept, whose place among the weights is noted.
        observed: what those who look at the run remember of the steps before.
        step: steps that are done.

    Raises: InputError if it cannot be written, for lack of room; the checkpoints before it stay.
    """
    target = folder / f"step_{step:08d}"
    weights = {key: value.detach().cpu().contiguous() for key, value in method.state_dict().items()}
    states = {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
    try:
        _check_room(folder, weights, states)
        with whole_folder(target) as made:
            save_file(weights, made / METHOD)
            torch.save(states, made / OPTIMIZER)
            save_file({name: value.cpu().contiguous() for name, value in observed.items()}, made / OBSERVED)
            state = {"step": step, "backbone": _prefix(method, backbone)}
            (made / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
            sums = {name: _checksum(made / name) for name in FILES}
            (made / CHECKSUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
            for path in (*made.iterdir(), made):
                _sync(path)
            if target.exists():
                remove_folder(target)
        _sync(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # of the system, of torch.save, of safetensors
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).partition("\n")[0]
        before = [path.name for path in _newest_first(folder)[:1]]
        raise InputError(
            f"cannot write {target}: {reason}; {f'{before[0]} is whole' if before else 'there is none before it'}; "
            "make room, then continue the run"
        ) from error
    prune(folder, keep)
    return target


def prune(folder: Path, keep: int) -> None:
    """Removes all but the `keep` newest checkpoints, and what killed processes left half written or half removed."""
    remove_abandoned(folder)
    for old in _newest_first(folder)[keep:]:
        remove_folder(old)


def find_checkpoints(folder: Path) -> Found:
    """Reads all checkpoints of a folder to tell the whole ones from the damaged ones."""
    problems = {checkpoint: _damage(checkpoint) for checkpoint in _newest_first(folder)}
    return Found(
        [path for path, problem in problems.items() if problem is None],
        {path: problem for path, problem in problems.items() if problem is not None},
    )


def newest_whole(folder: Path) -> Path:
    """The newest whole checkpoint of a folder, for a reader; damaged ones are passed over with a warning.

    Raises: InputError if there is none.
    """
    for checkpoint in _newest_first(folder):
        problem = _damage(checkpoint)
        if problem is None:
            return checkpoint
        logger.warning("checkpoint %s is damaged (%s); trying the one before", checkpoint, problem)
    raise InputError(f"{folder} holds no whole checkpoint; let pretraining write one (it does after every epoch)")


def newest_step(folder: Path) -> int | None:
    """Steps of the newest checkpoint by its name, whole or not; None if there is none."""
    return next((_step_of(path) for path in _newest_first(folder)), None)


def move_aside(checkpoint: Path) -> Path:
    """Renames a damaged checkpoint so that it counts no more; returns its new place."""
    ends = itertools.chain([""], (f"_{i}" for i in itertools.count(2)))
    names = (checkpoint.with_name(f"damaged_{checkpoint.name}{end}") for end in ends)
    return checkpoint.rename(next(name for name in names if not os.path.lexists(name)))


class Restored(NamedTuple):
    """What a checkpoint tells: the steps that are done, and what was `observed`."""

    step: int
    observed: dict[str, torch.Tensor]


def load(checkpoint: Path, method: nn.Module, optimizer: Optimizer, scaler: torch.amp.GradScaler | None) -> Restored:
    """Restores everything in place.

    Raises: InputError if the checkpoint belongs to another network or optimizer.
    """
    load_into(method, load_file(checkpoint / METHOD), source=checkpoint / METHOD)
    try:
        saved: dict[str, Any] = torch.load(checkpoint / OPTIMIZER, weights_only=True, map_location="cpu")
        optimizer.load_state_dict(saved["optimizer"])
        if scaler and saved["scaler"]:
            scaler.load_state_dict(saved["scaler"])
        return Restored(_state(checkpoint)["step"], load_file(checkpoint / OBSERVED))
    except Exception as error:  # whatever a state of another kind leads to
        raise InputError(f"{checkpoint} cannot be restored ({error!r}); it is not a checkpoint of this run") from error


def backbone_prefix(checkpoint: Path) -> str:
    """With what the names of the backbone's weights begin among those of the method."""
    prefix: str = _state(checkpoint)["backbone"]
    return prefix


def backbone_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state dict of the backbone that a checkpoint keeps; no other weights are read."""
    prefix = backbone_prefix(checkpoint)
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
    """Checkpoints by their names; copies that a user called otherwise, as `step_00000012_best`, are not among them."""
    return sorted((path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)), key=_step_of, reverse=True)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole. Nothing but its own regular files is read."""
    try:
        sums = read_json(checkpoint / CHECKSUMS)
        if set(sums) != set(FILES):
            return f"{CHECKSUMS} is not that of a checkpoint"
        for name in FILES:
            if _checksum(checkpoint / name) != sums[name]:
                return f"checksum of {name} differs"
        if _state(checkpoint)["step"] != _step_of(checkpoint):
            return f"{STATE} is of another step"
    except (InputError, OSError) as error:
        return str(error)
    return None


def _state(checkpoint: Path) -> dict[str, Any]:
    """{"step": int, "backbone": prefix of its weights}.

    Raises: InputError if it is not that.
    """
    state = read_json(checkpoint / STATE)
    if type(state.get("step")) is not int or not str(state.get("backbone")).endswith("."):
        raise InputError(f"{checkpoint / STATE} is not that of a checkpoint; train the run again")
    return state


def _check_room(folder: Path, weights: Mapping[str, torch.Tensor], states: Any) -> None:
    """Raises OSError if the disk has less room than a checkpoint takes, so that none is begun in vain."""
    needed = sum(value.nbytes for value in weights.values()) + _tensor_bytes(states)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free", str(folder))


def _tensor_bytes(states: Any) -> int:
    if isinstance(states, torch.Tensor):
        return states.nbytes
    if isinstance(states, Mapping):
        return sum(map(_tensor_bytes, states.values()))
    return 0


def _checksum(file: Path) -> str:
    check_regular(file)
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
