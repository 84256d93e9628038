"""A network from its configuration and its weights, either of which may be damaged or come from a stranger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.errors import InputError
from ssl_lens.runs.checkpoint import load_into

_LONGEST_REASON = 200  # characters


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises: InputError if it cannot be read.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); export the run again") from None


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as a safetensors file that is readable as the umask says; `save_file` makes it private."""
    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def build_network(config: dict[str, Any], weights: dict[str, Tensor], *, source: Path) -> MapBackbone:
    """The network of an export with its weights, on the CPU; nothing larger than the weights is ever allocated.

    Args:
        config: as `catalog.backbone_config` gives it, of a folded network.
        source: file of the weights, for messages.

    Raises: InputError if `config` describes no network, or one that these are not the weights of.
    """
    try:
        with torch.device("meta"), at_most(weights, source):  # shapes alone, no memory
            catalog.backbone_from_config(config)
    except InputError:
        raise
    except Exception as error:  # whatever arguments of a wrong type or sign may cause
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise InputError(f"{source.parent} describes no network ({reason}); export the run again") from None
    backbone = catalog.backbone_from_config(config)
    load_into(backbone, weights, source=source)
    return backbone


@contextmanager
def at_most(weights: Mapping[str, Tensor], source: Path) -> Iterator[None]:
    """Stops the construction of a network that has far more, or larger, parameters than there are weights."""
    numbers, tensors = 2 * sum(value.numel() for value in weights.values()), 2 * len(weights)  # some are made twice

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal numbers, tensors
        numbers, tensors = numbers - parameter.numel(), tensors - 1
        if numbers < 0 or tensors < 0:
            raise InputError(f"{source} holds the weights of a smaller network; export the run again")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
