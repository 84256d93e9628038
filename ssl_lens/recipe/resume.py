"""What a run that is continued takes over from before, and what may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssl_lens.engine.schedule import Schedule
from ssl_lens.errors import InputError
from ssl_lens.recipe.paths import PLACES
from ssl_lens.recipe.recipe import Recipe, load_recipe, replace
from ssl_lens.runs.environment import recorded_arithmetic
from ssl_lens.runs.folder import RunFolder

MAY_CHANGE = {"run", "optim.epochs"}  # what does not decide the numbers of a run, and how long it is
_MOST_THREADS = 4096


def recorded_threads(folder: RunFolder) -> int | None:
    """CPU threads that each process of the run had, on which its bits depend; None where it has none yet."""
    threads = recorded_arithmetic(folder.environment).get("cpu_threads")
    return threads if isinstance(threads, int) and 0 < threads <= _MOST_THREADS else None


def recorded_recipe(folder: RunFolder) -> Recipe | None:
    """The recipe of the run in the folder, every `auto` resolved; None if there is none yet.

    Raises: InputError if it cannot be read.
    """
    if not folder.recipe.exists():
        return None
    try:
        recipe = load_recipe(folder.recipe)
        if recipe.data.in_channels == "auto":  # nothing is, in what a run writes
            raise InputError("it is not the whole recipe of a run")
    except (InputError, ValueError, OSError) as error:
        raise InputError(
            f"{folder.recipe} cannot be used ({error}); restore it, or set resume=restart to begin the run anew"
        ) from None
    return recipe


def with_choices_of(before: Recipe | None, recipe: Recipe) -> Recipe:
    """The recipe, with what `auto` stood for when the run began, where there is one."""
    if before is None:
        return recipe
    now = recipe.model_dump(mode="json")
    decides = {section: now[section] for section in now.keys() - MAY_CHANGE}
    return replace(recipe, dict(_chosen(before.model_dump(mode="json"), decides)))


def refuse_another_recipe(root: Path, before: Recipe | None, recipe: Recipe) -> None:
    """Raises InputError naming the first key in which a recipe differs from that of the run in the folder `root`.

    A folder may have been moved: places may differ, as the images themselves are compared, and weights are loaded from
    the run's own checkpoints.
    """
    if before is not None:
        _refuse_differences(root, before.model_dump(mode="json"), recipe.model_dump(mode="json"))


def refuse_shorter(schedule: Schedule, start: int, epochs: int) -> None:
    """Raises InputError if the run has gone further than its epochs now say."""
    if start > schedule.total_steps:
        raise InputError(
            f"optim.epochs={epochs} ends after step {schedule.total_steps}, but the run is at step {start}; "
            f"set optim.epochs to {-(-start // schedule.steps_per_epoch)} or more"
        )


def changes(
    folder: RunFolder,
    before: Recipe | None,
    recipe: Recipe,
    step: int,
    schedule_of: Callable[[Recipe], Schedule],
    now: dict[str, Any],
) -> list[str]:
    """Lines on what is not as it was when the run stopped: its length, and what its bits depend on.

    Args:
        before: the run's recipe until now, if it has one.
        step: that the run goes on with.
        schedule_of: of a recipe.
        now: `arithmetic` of the environment.
    """
    lines = []
    if before is not None and before.optim.epochs != recipe.optim.epochs:
        epochs = before.optim.epochs
        was, is_now = schedule_of(replace(recipe, {"optim.epochs": epochs})), schedule_of(recipe)
        lines.append(f"optim.epochs: {epochs} -> {recipe.optim.epochs}; {_moved(was, is_now, step)}")
    were = recorded_arithmetic(folder.environment)
    differing = [f"{name} {were[name]} -> {value}" for name, value in now.items() if were.get(name, value) != value]
    if differing:
        lines.append(f"not bit-exact from here on: {', '.join(differing)}")
    return lines


def _moved(was: Schedule, now: Schedule, step: int) -> str:
    """What the values of a step were, at the end of the schedule before, and become."""
    if step >= now.total_steps:
        return "nothing is left to do"
    then, values = was.at(min(step, was.total_steps - 1)).numbers(), now.at(step).numbers()
    moved = [f"{name} {then[name]:.3g} -> {value:.3g}" for name, value in values.items() if value != then[name]]
    return f"from step {step} on the schedules are those of {now.total_steps} steps: {', '.join(moved) or 'no change'}"


def _chosen(before: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys that are `auto` now, with what they were."""
    for name, value in now.items():
        was = before.get(name) if isinstance(before, dict) else None
        if isinstance(value, dict):
            yield from _chosen(was, value, f"{prefix}{name}.")
        elif value == "auto" and was not in (None, "auto"):
            yield f"{prefix}{name}", was


def _refuse_differences(root: Path, before: Any, now: Any, key: str = "") -> None:
    if before == now or key in MAY_CHANGE or key in PLACES:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before | now:
            _refuse_differences(root, before.get(name), now.get(name), f"{key}.{name}" if key else name)
        return
    raise InputError(
        f"{root} was run with {key}={before!r}, the recipe now says {now!r}; "
        f"set {key} back to resume, or run.folder to a new folder"
    )
