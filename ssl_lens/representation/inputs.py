"""What a frozen backbone may be given: arrays of one image or of many, and paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_lens.data.pack.packed_images import Images, PackedImages
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError, arguments_named

if TYPE_CHECKING:  # an export alone needs no readers
    from ssl_lens.data.folders.layouts import LayoutName
    from ssl_lens.data.formats.planes import Names
    from ssl_lens.data.images import ImageSet

BATCH_SIZE = 256

Item = TypeVar("Item")

AnyImages: TypeAlias = Tensor | Images | Path | str | Sequence[Path | str]


def as_batch(images: Tensor, channels: int) -> Tensor:
    """Images [B, C, H, W], [B, H, W] of one channel, or a single one [C, H, W] or [H, W], as [B, C, H, W].

    Raises: InputError for any other shape, no images at all, or what is not real numbers.
    """
    single = channels == 1 and images.ndim in (2, 3)  # [H, W] or [B, H, W]
    batch = images.reshape(-1, 1, *images.shape[-2:]) if single else images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1] != channels or not batch.numel() or batch.is_complex():
        alone = "[B, H, W], [H, W]" if channels == 1 else f"[{channels}, H, W]"
        raise InputError(
            f"images have shape {list(images.shape)} and type {str(images.dtype).removeprefix('torch.')}; this "
            f"backbone takes real numbers [B, {channels}, H, W] or {alone}: change the images"
        )
    return batch


def batches_of(
    images: Images | Path | str | Sequence[Path | str], channels: int, policy: PixelPolicy
) -> Iterator[Tensor]:
    """Raw images of an array or of files as float32 tensors [b, C, H, W] on the CPU, at most `BATCH_SIZE` at once.

    Raises: InputError as `as_batch` for an array, as `read_images` for paths.
    """
    if not isinstance(images, np.ndarray | PackedImages):
        from ssl_lens.data.reading import read_images  # an export alone needs no readers

        images = read_images(images, in_channels=channels, policy=policy).images
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "biuf":
            raise InputError(f"images are an array of type {images.dtype}; give real numbers")
        if images.ndim < 4 or not images.size:
            images = as_batch(torch.from_numpy(np.array(images, dtype=np.float32)), channels).numpy()
    return raw_batches(images, BATCH_SIZE)


@arguments_named({"path": "data"})
def images_of(
    data: Path | str,
    preprocess: Preprocess,
    *,
    layout: LayoutName = "auto",
    table: Path | str | None = None,
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
) -> ImageSet:
    """The images of a folder, a table, a pack or a file, as a network with this preprocessing needs them.

    Args:
        planes, noise, mask: which planes of the files are read; None for those that the preprocessing was fitted to.

    Raises: InputError as `read_images`, whose `path` is called `data`.
    """
    from ssl_lens.data.reading import read_images

    channels, policy = preprocess.in_channels, preprocess.policy.with_planes(planes, noise, mask)
    return read_images(data, in_channels=channels, policy=policy, layout=layout, table=table, files=files)


def raw_batches(images: Images, batch_size: int, *, progress: str | None = None) -> Iterator[Tensor]:
    """Raw images [N, C, H, W] as float32 tensors of at most `batch_size` images, on the CPU.

    Args:
        progress: what a progress bar on a terminal is called; none is shown if None.
    """
    starts = range(0, len(images), batch_size)
    bar = tqdm(starts, desc=progress, unit="batch", leave=False, disable=True if progress is None else None)
    for start in bar:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes inf, which is filled
            yield torch.from_numpy(np.array(images[start : start + batch_size], dtype=np.float32, order="C"))


def in_advance(items: Iterable[Item]) -> Iterator[Item]:
    """The items in their order; a thread makes the next one while this one is used.

    Raises: what making an item raises, when it is its turn.
    """
    source = iter(items)
    with ThreadPoolExecutor(max_workers=1) as thread:
        following = thread.submit(next, source, None)
        while (item := following.result()) is not None:
            following = thread.submit(next, source, None)
            yield item


def device_of(module: nn.Module) -> torch.device:
    """Where the numbers of a module are that has buffers, such as a preprocessing."""
    return next(module.buffers()).device


def best_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
