"""Batches of images that lie in one array, in memory or on disk."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.batches import Plan
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.transfer import sent

_CHUNK = 1024  # images moved to the GPU at once


class ArrayBatches:
    """`Batches` of raw images read by index from one array.

    An epoch is a permutation drawn from (seed, epoch), cut into global batches; what is left over at its end is
    dropped. A rank reads its own contiguous share of each global batch, in `accumulate` micro-batches, so the
    global batch of a step is the same for any number of processes.

    Args:
        images: raw pixels [N k, C, H, W], or what stands for images [N k, ...]; moved to the GPU whole where half of
            its free memory holds them.
        renderings: k images of each object, one after the other.

    Raises: InputError if a batch is larger than the set or is not shared evenly.
    """

    def __init__(self, images: Images, plan: Plan, device: torch.device, renderings: int = 1) -> None:
        self.objects = len(images) // renderings
        plan.check(self.objects)
        self.images, self.plan, self.device, self.renderings = _resident(images, device), plan, device, renderings
        self.steps_per_epoch = self.objects // plan.batch_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def at(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(raw images, their indices [b]) of this rank, b = batch_size / (world_size · accumulate).

        Images are [b, C, H, W], of several renderings [b, k, C, H, W].
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.plan.seed, epoch)).permutation(self.objects)
        share = self.plan.batch_size // self.plan.world_size
        start = place * self.plan.batch_size + self.plan.rank * share
        return [self._read(part) for part in np.split(self._order[1][start : start + share], self.plan.accumulate)]

    def close(self) -> None:
        """Nothing reads ahead."""

    def _read(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = (index[:, None] * self.renderings + np.arange(self.renderings)).ravel()
        images = self.images
        if isinstance(images, Tensor):
            read = images[sent(torch.from_numpy(rows), self.device)]
        else:
            read = sent(torch.from_numpy(images[rows]), self.device)
        if self.renderings > 1:
            read = read.unflatten(0, (-1, self.renderings))
        return read, torch.from_numpy(index)


def _resident(images: Images, device: torch.device) -> Images | Tensor:
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    resident = torch.empty(images.shape, device=device)
    for start in range(0, len(images), _CHUNK):  # the processor's memory need not hold them
        resident[start : start + _CHUNK] = torch.from_numpy(np.array(images[start : start + _CHUNK]))
    return resident
