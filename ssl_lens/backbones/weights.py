"""Weights from a file: read without executing anything, renamed where their family knows how, loaded strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.steerable.stem import StemmedBackbone
from ssl_lens.backbones.timm_backbone import TimmBackbone
from ssl_lens.errors import InputError

WRAPPERS = ("state_dict", "model")  # keys under which checkpoints keep the weights
PARALLEL = "module."  # what torch's DistributedDataParallel puts in front of every name


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in one that torch.save wrote.

    Of the latter only tensors and plain containers are read; a file that wants more is refused.

    Raises: InputError if there is no such file or it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file of weights (.safetensors, .pth)")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types; torch's for a pickle it will not execute is no more than an Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read as weights ({reason}); give a .safetensors file") from None
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict; save `network.state_dict()` in it")
    return {str(key): value for key, value in state.items()}


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
    backbone.load_state_dict(state)


def load_pretrained(backbone: MapBackbone) -> None:
    """Loads timm's own weights into a network of timm, a stem in front of it left as it is.

    Raises: InputError for another network, or if the weights cannot be had, as without a connection.
    """
    network = backbone.backbone if isinstance(backbone, StemmedBackbone) else backbone
    if not isinstance(network, TimmBackbone):
        raise InputError("only networks of timm have pretrained weights to fetch; give a file of weights")
    network.load_pretrained()
