"""What a computation keeps for its backward pass."""

from collections.abc import Callable, Iterable

import torch


def kept_bytes(function: Callable[[], object], besides: Iterable[torch.Tensor] = ()) -> dict[torch.dtype, int]:
    """Bytes of all storages that `function` saves, each once, by dtype; without those of the tensors in `besides`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # alive, so that no other one gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result
    by_dtype: dict[torch.dtype, int] = {}
    for tensor in kept.values():
        by_dtype[tensor.dtype] = by_dtype.get(tensor.dtype, 0) + tensor.untyped_storage().nbytes()
    return by_dtype
