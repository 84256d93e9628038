"""Weights from a file: read without executing anything, renamed where their family knows how, loaded strictly."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.steerable.stem import StemmedBackbone
from ssl_lens.backbones.timm_backbone import TimmBackbone
from ssl_lens.errors import InputError
from ssl_lens.files import check_regular

WRAPPERS = ("state_dict", "model")  # keys under which checkpoints keep the weights
PARALLEL = "module."  # what torch's DistributedDataParallel puts in front of every name


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in one that torch.save wrote.

    Of the latter only tensors and plain containers are read; a file that wants more is refused.

    Raises: InputError if there is no such file or it holds no state dict.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a file of weights (.safetensors, .pth)")
    size = check_regular(path)
    if not size:  # also of the system's own files, which torch would wait for
        raise InputError(f"{path} is empty; give a file of weights (.safetensors, .pth)")
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        _check_unpacked(path, size)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types; torch's for a pickle it will not execute is no more than an Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if reason.startswith("Weights only load failed"):  # and goes on to recommend executing it
            reason = "it is none of torch's, or would have to be executed"
        raise InputError(f"{path} cannot be read as weights ({reason}); give a .safetensors file") from None
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict; save `network.state_dict()` in it")
    for key, value in state.items():
        if not _is_stored(value):
            raise InputError(f"{path}: {str(key)[:100]} is sparse, or of fewer numbers than it shows; save it as it is")
    return {str(key): value for key, value in state.items()}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by name, from its header; of the tensors nothing is read.

    Raises: InputError if it cannot be read.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # of many types
        raise _unreadable(path, error) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises: InputError if it cannot be read.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except Exception as error:  # of many types
        raise _unreadable(path, error) from None


def check_numbers(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path | str) -> None:
    """Refuses weights that a network would load in silence, and then say nothing with.

    Args:
        own: the network's, by the names that `state` has; others are not looked at.

    Raises: InputError naming the first that is not of floating-point numbers where the network's is, or not finite.
    """
    for name, value in state.items():
        if name not in own:
            continue
        kind = own[name].dtype
        if value.dtype.is_floating_point != kind.is_floating_point or value.is_complex():
            given, needed = (str(dtype).removeprefix("torch.") for dtype in (value.dtype, kind))
            raise InputError(
                f"{source}: {name} is of type {given}, where the network has {needed}; save its weights again"
            )
        if kind.is_floating_point and not value.to(kind).isfinite().all():
            raise InputError(
                f"{source}: {name} holds numbers that are not finite; give the weights of a sound training"
            )


def load_weights(backbone: MapBackbone, state: dict[str, Tensor], source: Path | str) -> None:
    """Loads weights with the backbone's own names, or with its authors' or timm's where its family knows them.

    Args:
        source: where they come from, for an error.

    Raises: InputError, one line, if a weight is missing, unknown or of another shape.
    """
    state = {key.removeprefix(PARALLEL): value for key, value in state.items()}
    own = backbone.state_dict()
    if state.keys() != own.keys():
        state = backbone.from_published(state)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    problems = [
        f"{len(keys)} {what} (such as {keys[0]})" for keys, what in ((missing, "missing"), (unknown, "unknown")) if keys
    ]
    if other:
        key = min(other)
        shapes = f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        problems.append(f"{len(other)} of another shape ({shapes})")
    if problems:
        raise InputError(f"{source} holds the weights of another network: {', '.join(problems)}; build that network")
    check_numbers(own, state, source)
    backbone.load_state_dict(state)


def load_pretrained(backbone: MapBackbone) -> None:
    """Loads timm's own weights into a network of timm, a stem in front of it left as it is.

    Raises: InputError for another network, or if the weights cannot be had, as without a connection.
    """
    network = backbone.backbone if isinstance(backbone, StemmedBackbone) else backbone
    if not isinstance(network, TimmBackbone):
        raise InputError("only networks of timm have pretrained weights to fetch; give a file of weights")
    network.load_pretrained()


def _check_unpacked(path: Path, size: int) -> None:
    """torch.save packs nothing: what is packed, or in the file twice, would only expand when it is read."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if sum(member.file_size for member in members) > size or any(member.compress_type for member in members):
            raise InputError("its parts are compressed, or more than the file holds")


def _is_stored(value: Tensor) -> bool:
    """Whether a tensor has as many numbers as it shows."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return False
    return value.nbytes <= value.untyped_storage().nbytes()


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read ({error}); write it again")
