"""A network from its configuration and its weights, either of which may be damaged or come from a stranger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

_LONGEST_REASON = 200  # characters
_FEW = 1_000_000  # numbers
_MOST_CONSTANTS = 1 << 26  # numbers of all buffers: tables of positions, filters of harmonics


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as a safetensors file that is readable as the umask says; `save_file` makes it private."""
    path.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in state.items()}))


def build_network(
    config: dict[str, Any], shapes: Shapes, *, folded: bool, described_in: Path, source: Path
) -> MapBackbone:
    """The network of an export or a run with fresh weights, on the CPU; nothing far larger than its file is allocated.

    Args:
        config: as `catalog.backbone_config` gives it.
        shapes: of the tensors in the file of the weights, which need not have been read.
        folded: whether it is an export's, whose steerable filters are folded.
        described_in: the file of the configuration; source: that of the weights, for messages.

    Raises: InputError if `config` describes no network, or one that these cannot be the weights of.
    """
    try:
        if config != (catalog.folded(config) if folded else catalog.unfolded(config)):
            raise InputError(f"a network that is not {'' if folded else 'un'}folded is described; write it again")
        with torch.device("meta"), at_most(shapes, source):  # shapes alone, no memory
            catalog.backbone_from_config(catalog.folded(config))
        backbone = catalog.backbone_from_config(config)
    except InputError as error:
        raise InputError(str(error) if str(source) in str(error) else f"{described_in}: {error}") from None
    except Exception as error:  # whatever arguments of a wrong type or sign may cause
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise InputError(f"{described_in} describes no network ({reason}); write it again") from None
    if _numbers(shapes) > 2 * sum(value.numel() for value in backbone.state_dict().values()) + _FEW:
        raise InputError(f"{source} holds the weights of a larger network; write it again")
    return backbone


@contextmanager
def at_most(shapes: Shapes, source: Path) -> Iterator[None]:
    """Stops the construction of a network that has far more, or larger, parameters than there are weights."""
    numbers, tensors, constants = 2 * _numbers(shapes), 2 * len(shapes), _MOST_CONSTANTS  # some are made twice

    def refuse() -> None:
        raise InputError(f"{source} holds the weights of a smaller network; write it again")

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal numbers, tensors
        numbers, tensors = numbers - parameter.numel(), tensors - 1
        if numbers < 0 or tensors < 0:
            refuse()

    def count_constants(module: nn.Module, name: str, buffer: Tensor | None) -> None:
        nonlocal constants
        constants -= 0 if buffer is None else buffer.numel()
        if constants < 0:
            refuse()

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count_constants),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _numbers(shapes: Shapes) -> int:
    return sum(map(math.prod, shapes.values()))
