"""What is asked of images: their class, numbers, or only which of them do not belong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Classes:
    """The class of every image: labels int [N], indices into `names`."""

    labels: np.ndarray
    names: tuple[str, ...]

    def subset(self, index: np.ndarray) -> Classes:
        return replace(self, labels=self.labels[index])


@dataclass(frozen=True)
class Numbers:
    """Numbers that belong to every image.

    Attributes:
        values: float64 [N, T], of logarithms the decades.
        columns: what they are called in the images' table, [T].
        log: whether they are decimal logarithms of it, [T].
    """

    values: np.ndarray
    columns: tuple[str, ...]
    log: tuple[bool, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured, [T]."""
        return tuple(f"log10 {name}" if log else name for name, log in zip(self.columns, self.log, strict=True))

    def subset(self, index: np.ndarray) -> Numbers:
        return replace(self, values=self.values[index])


@dataclass(frozen=True)
class Normal:
    """Nothing but that these images are what is usual; unlike ones are to be found."""

    def subset(self, index: np.ndarray) -> Normal:
        return self


Answers = Classes | Numbers | Normal
