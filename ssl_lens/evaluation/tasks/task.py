"""What a task is: how images are divided for it, and how what a probe says of them is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from ssl_lens.evaluation.answers import Classes, Numbers
from ssl_lens.evaluation.division import Division, Divisions
from ssl_lens.evaluation.probes.probe import Probe
from ssl_lens.evaluation.table import Key, Prediction, Row

Truth = Classes | Numbers | None


class Task(ABC):
    """A way to judge.

    Attributes:
        name: in the table.
        probes: the names of those that are used where none are asked for.
        always: the names of those that are used whatever is asked for.
        turns: rotations of the images that judge, in eighths of a full turn, at each of which a probe is asked.
        metrics: those that the summary shows, of the many in the table; each also stands for `metric[name]`.
    """

    name: str
    probes: ClassVar[tuple[str, ...]]
    always: ClassVar[tuple[str, ...]] = ()
    turns: ClassVar[tuple[int, ...]] = (0,)
    metrics: ClassVar[tuple[str, ...]]

    @abstractmethod
    def divide(self, divisions: Divisions) -> Division:
        """The division that the task is about; tasks about the same one share what is fitted."""

    def takes(self, probe: Probe, division: Division) -> bool:
        """Whether the task can judge a probe: by default, whether it learns answers of the division's kind."""
        return isinstance(division.learned, probe.kinds)

    @abstractmethod
    def scores(self, truth: Truth, said: np.ndarray) -> dict[str, float]:
        """Metrics of what a probe said at each turn, [R, M, K]."""

    def predictions(self, key: Key, names: tuple[str, ...], truth: Truth, said: np.ndarray) -> list[Prediction]:
        """What is to be kept of every image, said [R, M, K]; by default nothing."""
        return []

    def figures(self, rows: Sequence[Row], predictions: Sequence[Prediction], folder: Path) -> list[Path]:
        """Draws the task's rows and predictions into files of the folder; by default none."""
        return []
