"""Which phase of a training step is on, seen from what the loop calls; the loop itself is not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from ssl_lens.recipe.compose import Pretraining
from ssl_lens.views.multicrop import Views

BETWEEN = "between steps"
PHASES = ("views", "teacher", "student", "losses", "backward", "clip", "optimiser", "EMA")


class Phases:
    """Follows the steps of a run; `now` is the phase that is on.

    `views` goes from the start of a step until they are made, `losses` is all that the method does around its networks
    (a method without a part called `teacher` or `student` has its forward pass there as well). `clip` goes from the end
    of backward to the optimiser's step, the check for NaN among it; `EMA` from there to the end of the step. What
    observers do between steps belongs to none.
    """

    def __init__(self) -> None:
        self.now = BETWEEN
        self.listeners: list[Callable[[str, str], None]] = []  # told of each change: (from, to)
        self._around: list[str] = []

    def follow(self, run: Pretraining) -> None:
        """Begins to see the steps of a run; to be called before it trains."""
        self._hook(run.method, "losses")
        for name, network in run.method.named_children():
            if name in ("teacher", "student"):
                self._hook(network, name)
        views_at, backward = run.views_at, run.accelerator.backward

        def views_seen(step: int) -> Iterator[Views]:
            parts = iter(views_at(step))
            while True:
                self._go("views")
                part = next(parts, None)
                if part is None:
                    self._go("clip")
                    return
                self._go("losses")
                yield part

        def backward_seen(loss: Any) -> None:
            self._go("backward")
            backward(loss)
            self._go("clip")

        run.views_at, run.accelerator.backward = views_seen, backward_seen  # type: ignore[method-assign]
        run.optimizer.register_step_pre_hook(lambda *_: self._go("optimiser"))
        run.optimizer.register_step_post_hook(lambda *_: self._go("EMA"))

    def end_step(self) -> None:
        """To be called by the first observer."""
        self._go(BETWEEN)

    def begin_step(self) -> None:
        """To be called by the last observer."""
        self._go("views")

    def _hook(self, module: nn.Module, phase: str) -> None:
        module.register_forward_pre_hook(lambda *_: self._enter(phase))
        module.register_forward_hook(lambda *_: self._leave())

    def _enter(self, phase: str) -> None:
        self._around.append(self.now)
        self._go(phase)

    def _leave(self) -> None:
        self._go(self._around.pop())

    def _go(self, phase: str) -> None:
        before, self.now = self.now, phase
        if before != phase:
            for listener in self.listeners:
                listener(before, phase)
