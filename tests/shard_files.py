"""Writes tar shards, and counts what is said of them."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def npy(value: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


def member(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def write_tar(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def image(number: int, side: int = 4) -> np.ndarray:
    """An image whose first pixel tells which one it is; the others only keep it from being constant."""
    pixels = np.arange(side * side, dtype=np.float32).reshape(1, side, side) / 1000
    pixels[0, 0, 0] = number
    return pixels


def write_shards(folder: Path, counts: Sequence[int], side: int = 4) -> str:
    """Writes `0.tar`, `1.tar`, ... of `image(0)`, `image(1)`, ... through all shards; returns their pattern."""
    number = 0
    for i, count in enumerate(counts):
        members = [member(f"{number + j:05d}.npy", npy(image(number + j, side))) for j in range(count)]
        write_tar(folder / f"{i}.tar", members)
        number += count
    return f"{folder}/{{0..{len(counts) - 1}}}.tar"
