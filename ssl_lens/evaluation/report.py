"""Results become a table, a CSV, a JSON file and two pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_lens.evaluation.pictures import draw_confusion, draw_roc
from ssl_lens.evaluation.protocol import Result, count_name, grouped


class Summary(NamedTuple):
    """Mean and spread (standard deviation over seeds, None for one seed) of one method at one number of labels.

    The last three are None for classifiers of frozen features.
    """

    method: str
    labels_per_class: int | None  # None: all
    seeds: int
    accuracy: float
    accuracy_std: float | None
    auc: float
    auc_std: float | None
    parameters: int | None = None
    logit_std: float | None = None
    quarter_turn_logit_std: float | None = None


def summarise(results: Sequence[Result]) -> list[Summary]:
    """One summary per method and number of labels, in order of first appearance."""
    rows = []
    for (method, count), group in grouped(results).items():
        accuracies, aucs = [result.accuracy for result in group], [result.auc for result in group]
        one = group[0].prediction
        steadiness: list[Any] = [one.parameters, None, None]
        if one.logit_std is not None:
            steadiness[1] = float(np.mean([result.prediction.logit_std for result in group]))
            steadiness[2] = float(np.mean([result.prediction.quarter_turn_logit_std for result in group]))
        scores = float(np.mean(accuracies)), spread(accuracies), float(np.mean(aucs)), spread(aucs)
        rows.append(Summary(method, count, len(group), *scores, *steadiness))
    return rows


def table(summaries: Sequence[Summary]) -> str:
    """The summaries as aligned text; of trained networks also parameters and the logits' spread over rotations."""
    heads = ["method", "labels/class", "seeds", "accuracy", "macro AUC"]
    rows = [
        [
            row.method,
            count_name(row.labels_per_class),
            str(row.seeds),
            plus_minus(row.accuracy, row.accuracy_std),
            plus_minus(row.auc, row.auc_std),
        ]
        for row in summaries
    ]
    if any(row.parameters is not None for row in summaries):
        heads += ["parameters", "logit std", "at 90° only"]
        for cells, row in zip(rows, summaries, strict=True):
            cells += [f"{row.parameters:,}", f"{row.logit_std:.4f}", f"{row.quarter_turn_logit_std:.2g}"]
    return aligned(heads, rows)


def write_report(results: Sequence[Result], classes: Sequence[str], out: Path, settings: dict[str, Any]) -> list[Path]:
    """Writes results.csv, results.json, roc.png and confusion.png into `out`; returns their paths.

    `settings` (JSON-able) says how the results came about and is stored beside them.
    """
    paths = [*write_numbers(results, classes, out, settings), out / "roc.png", out / "confusion.png"]
    draw_roc(results, paths[2])
    draw_confusion(results, classes, paths[3])
    return paths


def write_numbers(results: Sequence[Result], classes: Sequence[str], out: Path, settings: dict[str, Any]) -> list[Path]:
    """The CSV and the JSON file of `write_report`."""
    rows = [_row(result) for result in results]
    summaries = [
        row._replace(labels_per_class=count_name(row.labels_per_class))._asdict() for row in summarise(results)
    ]
    content = {"settings": settings, "classes": list(classes), "summary": summaries, "results": rows}
    return write_rows(rows, content, out)


def write_rows(rows: Sequence[dict[str, Any]], content: dict[str, Any], out: Path) -> list[Path]:
    """Writes rows as out/results.csv and the content as out/results.json; returns both paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "results.csv", out / "results.json"]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    paths[1].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return paths


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, all others to the right."""
    columns = []
    for i, cells in enumerate(zip(heads, *rows, strict=True)):
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if i == 0 else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line) for line in zip(*columns, strict=True))


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def plus_minus(mean: float, std: float | None) -> str:
    """A mean with its spread, or room for one."""
    return f"{mean:.4f}" + (" " * 9 if std is None else f" ± {std:.4f}")


def _row(result: Result) -> dict[str, Any]:
    prediction = result.prediction
    row = {
        "method": result.method,
        "labels_per_class": count_name(result.labels_per_class),
        "seed": result.seed,
        "accuracy": result.accuracy,
        "macro_auc": result.auc,
    }
    if prediction.parameters is not None:
        row |= {
            "parameters": prediction.parameters,
            "logit_std": prediction.logit_std,
            "quarter_turn_logit_std": prediction.quarter_turn_logit_std,
        }
    return row
