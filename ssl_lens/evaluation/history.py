"""How training went, epoch by epoch, on disk as it goes."""

from __future__ import annotations

import csv
import time
from pathlib import Path

from ssl_lens.evaluation.finetune import Epoch


class History:
    """Writes one line of `path` per epoch, at once; without a path, as in all processes but one, nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._start = time.monotonic()
        self._best: dict[tuple[str, int, int], float] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._write(["method", "images", "seed", *Epoch._fields, "seconds"])

    def add(self, method: str, images: int, seed: int, epoch: Epoch) -> None:
        """Notes an epoch of training on that many images; seconds count from the start of all training."""
        if epoch.validation_loss is not None:
            training = method, images, seed
            self._best[training] = min(epoch.validation_loss, self._best.get(training, epoch.validation_loss))
        numbers = ["" if value is None else f"{value:.6g}" for value in epoch]
        self._write([method, str(images), str(seed), *numbers, f"{time.monotonic() - self._start:.1f}"])

    def best_validation_loss(self, method: str, images: int, seed: int) -> float | None:
        """The lowest of a training; None where it had no validation part."""
        return self._best.get((method, images, seed))

    def _write(self, row: list[str]) -> None:
        if self.path is not None:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(row)
