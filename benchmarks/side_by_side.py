"""Timing of several ways to do one thing, in turn in one run, so that a busy machine slows all."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Comparison:
    """Medians over the repeats; the ratio is the median of the ratios of neighbouring runs."""

    name: str
    unit: str
    ours_per_second: float
    reference_per_second: float
    ratio: float
    ratio_lowest: float
    ratio_highest: float
    target_ratio: float | None


def time_in_turn(
    functions: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function, `repeats` times in turn, after a first round that does not count."""
    seconds = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return {name: measured[1:] for name, measured in seconds.items()}


def compare(
    name: str, ours: list[float], reference: list[float], *, count: int, unit: str, target_ratio: float | None
) -> Comparison:
    """Seconds of neighbouring runs made into rates and ratios; `count` is how many `unit` one run makes."""
    ratios = sorted(theirs / mine for mine, theirs in zip(ours, reference, strict=True))
    return Comparison(
        name=name,
        unit=unit,
        ours_per_second=count / statistics.median(ours),
        reference_per_second=count / statistics.median(reference),
        ratio=statistics.median(ratios),
        ratio_lowest=ratios[0],
        ratio_highest=ratios[-1],
        target_ratio=target_ratio,
    )


def report(comparisons: list[Comparison], path: Path) -> None:
    """Prints a table and writes it, with the machine, as JSON."""
    print(f"{'':42} {'ours':>10} {'reference':>10} {'ratio':>7} {'lowest':>7} {'highest':>7} {'target':>7}")
    for row in comparisons:
        print(
            f"{row.name + ' (' + row.unit + '/s)':42} {row.ours_per_second:10.1f} {row.reference_per_second:10.1f} "
            f"{row.ratio:7.2f} {row.ratio_lowest:7.2f} {row.ratio_highest:7.2f} {row.target_ratio or '-':>7}"
        )
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "comparisons": [asdict(row) for row in comparisons]}, indent=2))
    print(f"written: {path}")


def parser(description: str, repeats: int) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the JSON goes")
    made.add_argument("--repeats", type=int, default=repeats)
    return made


def arguments(description: str, repeats: int) -> argparse.Namespace:
    return parser(description, repeats).parse_args()
