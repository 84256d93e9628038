"""What the features of a run are worth, next to what needs no training and to the best so far."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from ssl_lens.backbones.backbone import Encoder
from ssl_lens.engine.best import Best
from ssl_lens.errors import InputError
from ssl_lens.files import read_json, whole_file
from ssl_lens.runs.folder import RunFolder, writing

logger = logging.getLogger(__name__)

INITIAL, WAVELETS, BEST = "initial", "lens_wavelets", "best"  # what features are compared with
STANDARD_ERRORS = 2  # that a difference has to exceed

Figures = dict[str, float]


class Monitor(Protocol):
    """Measures a backbone."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The shares in [0, 1] that say what its features are worth: the highest of them counts."""
        ...

    @property
    def trials(self) -> int:
        """Of how many these are shares."""
        ...

    def measure(self, backbone: Encoder) -> Figures:
        """Metrics by name, the figures among them."""
        ...


class Shortfall(NamedTuple):
    """Features that are worth less than others by more than chance explains.

    Attributes:
        than: `initial`, the network as training began with it; `lens_wavelets`; or `best`, the run's best epoch.
        value, level: shares in [0, 1] of both.
        noise: two standard errors of their difference.
        trials: of how many they are shares.
    """

    than: str
    value: float
    level: float
    noise: float
    trials: int


class Watch:
    """Measures the backbone that is kept before the first step and at the end of every epoch; on the main process.

    Args:
        monitors: the first one says what features are worth. Of what they are compared with that needs no training, the
            best counts.
        wavelets: figures of `lens_wavelets` by that monitor; none if there are none.
        best: what keeps the best epoch by that monitor.
    """

    def __init__(
        self, folder: RunFolder, monitors: Sequence[Monitor], wavelets: Callable[[], Figures], best: Best
    ) -> None:
        self.folder, self.monitors, self.wavelets, self.best = folder, monitors, wavelets, best
        self.judge = monitors[0]
        self.baselines = read_baselines(folder)
        self.shortfalls: list[Shortfall] = []

    def begin(self, backbone: Encoder) -> None:
        """Measures the network as training begins with it, and the wavelets; a resumed run reads what was measured.

        Raises: InputError if it cannot be written, for lack of room.
        """
        measured = {INITIAL: self._measure(backbone), WAVELETS: self.wavelets()}
        self.baselines = {name: figures for name, figures in measured.items() if figures}
        with writing(self.folder.baselines), whole_file(self.folder.baselines) as temporary:
            temporary.write_text(json.dumps(self.baselines, indent=2) + "\n", encoding="utf-8")
        for name, figures in self.baselines.items():
            shown = ", ".join(f"{figure} {figures[figure]:.3f}" for figure in self.judge.figures)
            logger.info("before training, %s: %s (of %d)", name, shown, self.judge.trials)

    def after_epoch(self, backbone: Encoder, step: int, epoch: float) -> Figures:
        """Metrics of the backbone after a step; keeps it if it is the best so far.

        Raises: InputError if it cannot be written, for lack of room.
        """
        metrics = self._measure(backbone)
        worth = self._worth(metrics)
        self.best.offer(backbone, step, epoch, worth)
        compared = sorted((self._worth(figures), name) for name, figures in self.baselines.items())[-1:]
        compared += [] if self.best.kept is None else [(self.best.kept.worth, BEST)]
        found = (_shortfall(than, worth, level, self.judge.trials) for level, than in compared)
        self.shortfalls = [each for each in found if each is not None]
        return metrics

    def _measure(self, backbone: Encoder) -> Figures:
        return {name: value for monitor in self.monitors for name, value in monitor.measure(backbone).items()}

    def _worth(self, figures: Mapping[str, float]) -> float:
        return max((figures[name] for name in self.judge.figures if name in figures), default=0.0)


def _shortfall(than: str, value: float, level: float, trials: int) -> Shortfall | None:
    noise = STANDARD_ERRORS * standard_error(value, level, trials)
    return Shortfall(than, value, level, noise, trials) if level - value > noise else None


def standard_error(first: float, second: float, trials: int) -> float:
    """Of the difference of two shares of `trials` each, that may be 0 or 1.

    Source: Agresti & Caffo 2000, one hit and one miss added to each. Differs: images that both are judged by are the
    same ones, which makes the difference less uncertain than it says.
    """
    smoothed = ((share * trials + 1) / (trials + 2) for share in (first, second))
    return math.sqrt(sum(share * (1 - share) for share in smoothed) / (trials + 2))


def read_baselines(folder: RunFolder) -> dict[str, Figures]:
    """What was measured before training, by name; empty if nothing was, or it cannot be read."""
    try:
        found = read_json(folder.baselines)
        return {name: {key: float(value) for key, value in figures.items()} for name, figures in found.items()}
    except (InputError, AttributeError, TypeError, ValueError):
        return {}
