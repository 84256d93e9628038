"""Timing of two ways to do one thing, alternately in one run, so that a busy machine slows both."""

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
    target_ratio: float


def compare(
    name: str,
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    count: int,
    unit: str,
    target_ratio: float,
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Runs both once unmeasured, then in turn `repeats` times; `count` is how many `unit` one call makes."""
    pairs = [(_seconds(ours, clock), _seconds(reference, clock)) for _ in range(repeats + 1)][1:]
    ratios = sorted(theirs / mine for mine, theirs in pairs)
    return Comparison(
        name=name,
        unit=unit,
        ours_per_second=count / statistics.median(mine for mine, _ in pairs),
        reference_per_second=count / statistics.median(theirs for _, theirs in pairs),
        ratio=statistics.median(ratios),
        ratio_lowest=ratios[0],
        ratio_highest=ratios[-1],
        target_ratio=target_ratio,
    )


def _seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    function()
    return clock() - start


def report(comparisons: list[Comparison], path: Path) -> None:
    """Prints a table and writes it, with the machine, as JSON."""
    print(f"{'':42} {'ours':>10} {'reference':>10} {'ratio':>7} {'lowest':>7} {'highest':>7} {'target':>7}")
    for row in comparisons:
        print(
            f"{row.name + ' (' + row.unit + '/s)':42} {row.ours_per_second:10.1f} {row.reference_per_second:10.1f} "
            f"{row.ratio:7.2f} {row.ratio_lowest:7.2f} {row.ratio_highest:7.2f} {row.target_ratio:7.2f}"
        )
    machine = {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "comparisons": [asdict(row) for row in comparisons]}, indent=2))
    print(f"written: {path}")


def arguments(description: str, repeats: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the JSON goes")
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser.parse_args()
