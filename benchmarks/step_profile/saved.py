"""Bytes that the forward pass saves for backward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from step_profile.operators import Place


class SavedBytes(TorchDispatchMode):
    """While entered, adds up the storages of what autograd saves, each once, by the place where it was saved first.

    Parameters and buffers are not counted. What is made of them alone and is no larger, such as their casts under
    autocast and the weights of a weight norm, is counted in `of_weights`: it does not grow with the batch. What a
    function keeps by other means than autograd's is not seen.

    Args:
        place: where the step is.
    """

    def __init__(self, network: nn.Module, place: Callable[[], Place]) -> None:
        super().__init__()
        self.place = place
        self.by_place: dict[Place, int] = defaultdict(int)
        self.by_dtype: dict[str, int] = defaultdict(int)
        self.of_weights = 0
        self._weights = {_storage(tensor) for tensor in (*network.parameters(), *network.buffers())}
        self._parameters = set(self._weights)
        self._seen: set[StorageWeakRef] = set()
        self._hooks = saved_tensors_hooks(self._save, lambda tensor: tensor)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._hooks.__exit__(kind, error, traceback)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if given and all(_storage(tensor) in self._weights for tensor in given):
            largest = max(tensor.numel() for tensor in given)
            made = (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
            self._weights |= {_storage(tensor) for tensor in made if tensor.numel() <= largest}
        return result

    def _save(self, tensor: Tensor) -> Tensor:
        storage = _storage(tensor)
        if storage not in self._seen and storage not in self._parameters:
            self._seen.add(storage)
            size = tensor.untyped_storage().nbytes()
            if storage in self._weights:
                self.of_weights += size
            else:
                self.by_place[self.place()] += size
                self.by_dtype[str(tensor.dtype).removeprefix("torch.")] += size
        return tensor


def _storage(tensor: Tensor) -> StorageWeakRef:
    """Which stays another's even when the storage is freed and its memory used again."""
    return StorageWeakRef(tensor.untyped_storage())
