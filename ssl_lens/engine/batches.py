"""Which images a step sees: a pure function of (seed, step), so that resuming needs no saved sampler."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.packed_images import Images
from ssl_lens.errors import InputError

_CHUNK = 1024  # images moved to the GPU at once


class Batches:
    """Reads batches of raw images by index from one array.

    An epoch is a permutation drawn from (seed, epoch), cut into global batches; what is left over at its end is
    dropped. A rank reads its own contiguous share of each global batch, in `accumulate` micro-batches, so the
    global batch of a step is the same for any number of processes.

    Args:
        images: raw pixels [N, C, H, W]; moved to the GPU whole where half of its free memory holds them.
        batch_size: images per step over all ranks and micro-batches.

    Raises: InputError if a batch is larger than the set or is not shared evenly.
    """

    def __init__(
        self,
        images: Images,
        *,
        batch_size: int,
        accumulate: int,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
    ) -> None:
        check_batch_size(batch_size, len(images), world_size, accumulate)
        self.images = _resident(images, device)
        self.batch_size, self.accumulate, self.seed = batch_size, accumulate, seed
        self.rank, self.world_size, self.device = rank, world_size, device
        self.steps_per_epoch = len(images) // batch_size
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def micro_batches(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """(raw images [b, C, H, W], their indices [b]) of this rank, b = batch_size / (world_size · accumulate)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.images))
        share = self.batch_size // self.world_size
        start = place * self.batch_size + self.rank * share
        return [self._read(part) for part in np.split(self._order[1][start : start + share], self.accumulate)]

    def _read(self, index: np.ndarray) -> tuple[Tensor, Tensor]:
        on_device = torch.from_numpy(index).to(self.device)
        if isinstance(self.images, Tensor):
            return self.images[on_device], on_device
        return torch.from_numpy(self.images[index]).to(self.device), on_device


def check_batch_size(batch_size: int, images: int, world_size: int, accumulate: int) -> None:
    """Raises InputError if a batch is larger than the set or is not shared evenly."""
    if batch_size > images:
        raise InputError(
            f"optim.batch_size={batch_size} exceeds the {images} images; set optim.batch_size to {images} or less"
        )
    if batch_size % (world_size * accumulate):
        raise InputError(
            f"optim.batch_size={batch_size} is not a multiple of {world_size} processes x "
            f"optim.accumulate={accumulate}; set optim.batch_size to a multiple of {world_size * accumulate}"
        )


def _resident(images: Images, device: torch.device) -> Images | Tensor:
    if device.type != "cuda" or images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
        return images
    resident = torch.empty(images.shape, device=device)
    for start in range(0, len(images), _CHUNK):  # the processor's memory need not hold them
        resident[start : start + _CHUNK] = torch.from_numpy(images[start : start + _CHUNK])
    return resident
