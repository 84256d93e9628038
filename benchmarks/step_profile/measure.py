"""A few steps of a recipe's own training, timed and then counted."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ssl_lens.engine.loop import Step
from ssl_lens.recipe.compose import Pretraining, compose
from ssl_lens.recipe.recipe import Recipe, load_recipe, replace
from step_profile.clock import Clock
from step_profile.operators import Cost, Operators, Place
from step_profile.parts import Parts
from step_profile.peak import Peak
from step_profile.phases import BETWEEN, PHASES, Phases
from step_profile.saved import SavedBytes

WARM_UP_STEPS = 2  # a compiled network is compiled in them
CPU_BATCH_SIZE = 8
N_CLASSES = 3  # of simulated lenses


@dataclass(frozen=True)
class Profile:
    """What was measured of a step.

    Attributes:
        seconds: of each phase, medians over the timed steps; they add up to a step.
        costs: of the operators of one step, by (phase, part).
        by_operator: the same by the operator's name.
        saved_bytes: for backward, by (phase, part), and by type of numbers; of what is made of weights alone, apart.
        peak_flops_per_s: of a plain matrix product in the type of numbers of the step's, between the timed steps.
        peak_memory_bytes: of the GPU in each phase, and kernels that a step launches there; None on a CPU.
    """

    recipe: str
    batch_size: int
    precision: str
    device: str
    threads: int
    torch: str
    timed_steps: int
    seconds: dict[str, float]
    costs: dict[Place, Cost]
    by_operator: dict[str, Cost]
    saved_bytes: dict[Place, int]
    saved_bytes_by_dtype: dict[str, int]
    saved_bytes_of_weights: int
    peak_flops_per_s: float
    peak_memory_bytes: dict[str, int] | None
    kernels: int | None

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def total(self) -> Cost:
        """Of a whole step."""
        total = Cost()
        for cost in self.costs.values():
            total += cost
        return total

    @property
    def share_of_peak(self) -> float:
        return self.total.flops / self.step_seconds / self.peak_flops_per_s

    @property
    def saved_bytes_per_image(self) -> float:
        return sum(self.saved_bytes.values()) / self.batch_size

    def costs_by(self, axis: int) -> dict[str, Cost]:
        """By phase (0) or by part (1)."""
        sums: dict[str, Cost] = defaultdict(Cost)
        for place, cost in self.costs.items():
            sums[place[axis]] += cost
        return dict(sums)

    def saved_by(self, axis: int) -> dict[str, float]:
        """Bytes per image by phase (0) or by part (1)."""
        sums: dict[str, float] = defaultdict(float)
        for place, size in self.saved_bytes.items():
            sums[place[axis]] += size / self.batch_size
        return dict(sums)

    def as_json(self) -> dict[str, Any]:
        """All of it, and what follows from it."""
        derived = {
            "step_seconds": self.step_seconds,
            "images_per_s": self.batch_size / self.step_seconds,
            "operators": self.total.operators,
            "casts": self.total.casts,
            "flops_per_image": self.total.flops / self.batch_size,
            "share_of_peak": self.share_of_peak,
            "saved_bytes_per_image": self.saved_bytes_per_image,
        }
        places = [{"phase": phase, "part": part, **asdict(cost)} for (phase, part), cost in sorted(self.costs.items())]
        saved = [
            {"phase": phase, "part": part, "bytes": size} for (phase, part), size in sorted(self.saved_bytes.items())
        ]
        own = {
            "costs": places,
            "saved_bytes": saved,
            "by_operator": {name: asdict(cost) for name, cost in self.by_operator.items()},
        }
        return {**derived, **self.__dict__, **own}


def profile(recipe: str, overrides: Sequence[str], *, steps: int) -> Profile:
    """Runs a recipe for `steps` timed steps and one that is counted; nothing of the run is kept.

    Raises: InputError as `load_recipe` and `compose`.
    """
    with TemporaryDirectory() as folder:
        run = compose(_few_images(load_recipe(recipe, [*overrides, f"run.folder={folder}/run"]), overrides))
        measuring = _Measuring(run, steps)
        run.observers[:] = [measuring]
        with suppress(_EnoughError):
            run.train()
        return measuring.profile(recipe)


def _few_images(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A recipe that never ends, of no more simulated lenses than a batch; of a batch that a CPU can take."""
    values: dict[str, Any] = {"optim.epochs": 10_000}
    size = recipe.optim.batch_size
    on_cpu = recipe.run.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and not any(override.startswith("optim.batch_size=") for override in overrides):
        values["optim.batch_size"] = size = CPU_BATCH_SIZE * recipe.optim.accumulate
    if recipe.data.path is None:
        values["simulate.count_per_class"] = -(-size // N_CLASSES)
    return replace(recipe, values)


class _EnoughError(Exception):
    """All that was to be measured has been."""


class _Measuring:
    """An observer that changes what is measured from step to step."""

    def __init__(self, run: Pretraining, steps: int) -> None:
        self.run, self.steps = run, steps
        self.device = run.accelerator.device
        self.clock, self.phases = Clock(self.device), Phases()
        self.phases.follow(run)
        self.peak = Peak(self.device, torch.float32 if run.recipe.optim.precision == "no" else torch.bfloat16)
        self.seconds: list[dict[str, float]] = []
        self.memory: dict[str, int] = {}
        self.kernels: int | None = None
        self._changes: list[tuple[str, Any]] = []  # the phase that ended, and when
        self._counting = ExitStack()
        self.phases.listeners.append(lambda before, _: self._changes.append((before, self.clock.stamp())))
        if self.clock.on_gpu:
            self.phases.listeners.append(self._note_memory)

    def after_step(self, step: Step) -> None:
        """Ends what was measured of the step that is over, begins the next."""
        self.phases.end_step()
        done = step.number - self.run.start + 1 - WARM_UP_STEPS  # timed steps, one counted, one of kernels
        if 0 < done <= self.steps:
            self.seconds.append(self._seconds_of_phases())
            self.peak.measure()
        if done == self.steps:
            self.phases.listeners.clear()
            self._begin_counting()
        if done == self.steps + 1:
            self._counting.close()
            if not self.clock.on_gpu:
                raise _EnoughError
            self._begin_kernels()
        if done == self.steps + 2:
            self._end_kernels()
            raise _EnoughError
        self._changes.clear()
        self.phases.begin_step()

    def _seconds_of_phases(self) -> dict[str, float]:
        sums: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        for (_, start), (phase, end) in zip(self._changes, self._changes[1:], strict=False):
            sums[phase] += self.clock.seconds(start, end)
        return sums

    def _begin_counting(self) -> None:
        self.parts = Parts(self.run.method)
        self._counting.callback(self.parts.close)
        place = lambda: (self.phases.now, self.parts.now)  # noqa: E731
        self.operators = self._counting.enter_context(Operators(place, self.clock))
        self.saved = self._counting.enter_context(SavedBytes(self.run.method, place))

    def _note_memory(self, before: str, _: str) -> None:
        if before != BETWEEN:
            self.memory[before] = max(self.memory.get(before, 0), torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()

    def _begin_kernels(self) -> None:
        torch.cuda.synchronize()
        self._profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
        self._profiler.start()

    def _end_kernels(self) -> None:
        torch.cuda.synchronize()
        self._profiler.stop()
        self.kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in self._profiler.events())

    def profile(self, recipe: str) -> Profile:
        """What was measured."""
        costs, by_operator = self.operators.costs()
        settings = self.run.recipe.optim
        return Profile(
            recipe=recipe,
            batch_size=settings.batch_size,
            precision=settings.precision,
            device=torch.cuda.get_device_name() if self.clock.on_gpu else "cpu",
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            timed_steps=self.steps,
            seconds={phase: statistics.median(seconds[phase] for seconds in self.seconds) for phase in PHASES},
            costs=costs,
            by_operator=by_operator,
            saved_bytes=dict(self.saved.by_place),
            saved_bytes_by_dtype=dict(self.saved.by_dtype),
            saved_bytes_of_weights=self.saved.of_weights,
            peak_flops_per_s=self.peak.flops_per_s,
            peak_memory_bytes=self.memory or None,
            kernels=self.kernels,
        )
