"""A profile as tables, as a file, as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from step_profile.measure import Profile
from step_profile.operators import Cost
from step_profile.parts import PARTS
from step_profile.phases import PHASES

MIB, GIB = 2**20, 2**30
SHOWN_OPERATORS = 12


def write(profile: Profile, folder: Path) -> None:
    """Writes profile.json and profile.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile.json").write_text(json.dumps(profile.as_json(), indent=1) + "\n", encoding="utf-8")
    draw(profile, folder / "profile.png")


def text(profile: Profile) -> str:
    """Tables by phase, by part of the network and by operator, and one line on the whole."""
    total, by_phase, by_part = profile.total, profile.costs_by(0), profile.costs_by(1)
    saved_phase, saved_part = profile.saved_by(0), profile.saved_by(1)
    phases = [
        _row(phase, profile.seconds[phase], by_phase.get(phase, Cost()), saved_phase.get(phase, 0.0))
        for phase in PHASES
    ]
    parts = [
        _row(part, by_part[part].seconds, by_part[part], saved_part.get(part, 0.0)) for part in PARTS if part in by_part
    ]
    longest = sorted(profile.by_operator.items(), key=lambda item: -item[1].seconds)[:SHOWN_OPERATORS]
    operators = [_row(name, cost.seconds, cost, None) for name, cost in longest]
    whole = _row("whole step", profile.step_seconds, total, profile.saved_bytes_per_image)
    by_dtype = (
        f"{size / profile.batch_size / MIB:.1f} in {dtype}" for dtype, size in profile.saved_bytes_by_dtype.items()
    )
    lines = [
        f"{profile.recipe}: batch {profile.batch_size}, precision {profile.precision}, {profile.device}, "
        f"{profile.threads} threads, torch {profile.torch}; medians of {profile.timed_steps} steps",
        "",
        *_table("phase", [*phases, whole]),
        "",
        *_table("part (operators' own time)", parts),
        "",
        *_table("operator (its own time)", operators),
        "",
        f"{profile.batch_size / profile.step_seconds:.4g} images/s; {total.flops / profile.batch_size / 1e9:.3g} GFLOP "
        f"an image; {total.flops / profile.step_seconds / 1e9:.4g} GFLOP/s are {profile.share_of_peak:.1%} of the "
        f"{profile.peak_flops_per_s / 1e9:.4g} GFLOP/s of a plain matrix product",
        f"saved for backward: {profile.saved_bytes_per_image / MIB:.1f} MiB an image ({', '.join(by_dtype)}), and "
        f"{profile.saved_bytes_of_weights / MIB:.1f} MiB a batch of what is made of weights alone",
        f"{total.operators} operators a step compute something, {total.casts} of them casts (views and allocations are "
        "not counted)",
    ]
    if profile.kernels is not None:
        lines.append(f"{profile.kernels} kernels and copies on the GPU a step")
    if profile.peak_memory_bytes is not None:
        lines.append(
            "peak memory (GiB): "
            + ", ".join(f"{phase} {size / GIB:.1f}" for phase, size in profile.peak_memory_bytes.items())
        )
    return "\n".join(lines)


def _row(name: str, seconds: float, cost: Cost, saved: float | None) -> Sequence[str]:
    return (
        name,
        f"{1000 * seconds:.1f}",
        f"{cost.flops / 1e9:.1f}",
        f"{cost.moved_bytes / GIB:.2f}",
        "" if saved is None else f"{saved / MIB:.1f}",
        f"{cost.operators:,}",
        f"{cost.casts:,}",
    )


def _table(what: str, rows: Sequence[Sequence[str]]) -> list[str]:
    head = (what, "ms", "GFLOP", "GiB moved", "saved MiB/image", "operators", "casts")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]


def draw(profile: Profile, picture: Path) -> None:
    """Time and operators by phase, what is saved and what takes the time by part of the network."""
    by_phase, by_part, saved = profile.costs_by(0), profile.costs_by(1), profile.saved_by(1)
    parts = [part for part in PARTS if part in by_part or part in saved]
    phases = {phase: by_phase.get(phase, Cost()) for phase in PHASES}
    figure = Figure(figsize=(11, 7), layout="constrained")
    figure.suptitle(
        f"{profile.recipe}, batch {profile.batch_size}, {profile.precision}: "
        f"{1000 * profile.step_seconds:.0f} ms a step, {profile.share_of_peak:.0%} of a plain matrix product"
    )
    axes = figure.subplots(2, 2)
    whole = f"ms of a step's {1000 * profile.step_seconds:.0f}"
    _bars(axes[0, 0], whole, list(PHASES), [1000 * profile.seconds[phase] for phase in PHASES])
    computing = [cost.operators - cost.casts for cost in phases.values()]
    _bars(axes[0, 1], f"operators a step, {profile.total.operators:,} in all", list(PHASES), computing)
    casts = [cost.casts for cost in phases.values()]
    axes[0, 1].barh(list(PHASES), casts, left=computing, color="tab:orange", label="of these casts")
    axes[0, 1].legend(frameon=False)
    in_parts = [1000 * by_part.get(part, Cost()).seconds for part in parts]
    _bars(axes[1, 0], "ms of operators, forward and backward", parts, in_parts)
    saved_mib = [saved.get(part, 0.0) / MIB for part in parts]
    _bars(axes[1, 1], f"MiB an image saved for backward, {sum(saved_mib):.1f} in all", parts, saved_mib)
    figure.savefig(picture, dpi=110)


def _bars(axes: Axes, title: str, names: Sequence[str], values: Sequence[float]) -> None:
    axes.barh(names, values)
    axes.invert_yaxis()
    axes.set_title(title)
