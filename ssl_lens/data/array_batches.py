"""Batches of images that lie in one array, in memory or on disk."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.batches import Plan
from ssl_lens.data.pack.packed_images import Images

_CHUNK = 1024  # images moved to the GPU at once


class ArrayBatches:
    """`Batches` of raw images read by index from one array.

    An epoch is a permutation drawn from (seed, epoch), cut into global batches; what is left over at its end is
    dropped. A rank reads its own contiguous share of each global batch, in `accumulate` micro-batches, so the
    global batch of a step is the same for any number of processes.

    Args:
        images: raw pixels [N, C, H, W]; moved to the GPU whole where half of its free memory holds them.

    Raises: InputError if a batch is larger than the set or is not shared evenly.
    """

    def __init__(self, images: Images, plan: Plan, device: torch.device) -> None:
        plan.check(len(images))
        self.images, self.plan, self.device = _resident(images, device), plan, device
        self.steps_per_epoch = len(images) // plan.batch_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def at(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(raw images [b, C, H, W], their indices [b]) of this rank, b = batch_size / (world_size · accumulate)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.plan.seed, epoch)).permutation(len(self.images))
        share = self.plan.batch_size // self.plan.world_size
        start = place * self.plan.batch_size + self.plan.rank * share
        return [self._read(part) for part in np.split(self._order[1][start : start + share], self.plan.accumulate)]

    def close(self) -> None:
        """Nothing reads ahead."""

    def _read(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        on_device = torch.from_numpy(index).to(self.device)
        if isinstance(self.images, Tensor):
            return self.images[on_device], on_device
        return torch.from_numpy(self.images[index]).to(self.device), on_device


def _resident(images: Images, device: torch.device) -> Images | Tensor:
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    resident = torch.empty(images.shape, device=device)
    for start in range(0, len(images), _CHUNK):  # the processor's memory need not hold them
        resident[start : start + _CHUNK] = torch.from_numpy(np.array(images[start : start + _CHUNK]))
    return resident
