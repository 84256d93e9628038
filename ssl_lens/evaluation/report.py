"""The table as text, and a report with the pictures; readers of the two files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_lens.evaluation.table import Prediction, Row, Summary, summarise
from ssl_lens.evaluation.tasks import TASKS

REPORT = "report.md"
HEADS = ["target", "probe", "labels", "seeds"]
COUNTS = ("parameters",)  # metrics that are whole numbers


def summary_text(rows: Sequence[Row]) -> str:
    """One aligned table per task, of its most important metrics: mean and spread over seeds."""
    texts = []
    for task in dict.fromkeys(row.task for row in rows):
        heads, lines = _table([row for row in rows if row.task == task], TASKS[task].metrics)
        texts.append(f"{task}\n{aligned(heads, lines)}")
    return "\n\n".join(texts)


def write_report(
    rows: Sequence[Row], predictions: Sequence[Prediction], settings: dict[str, Any], folder: Path
) -> list[Path]:
    """Draws the pictures of every task and writes report.md with all of its metrics; returns the paths.

    Args:
        settings: how the results came about, as in results.json.
    """
    paths: list[Path] = []
    lines = ["# Evaluation", "", "Mean ± standard deviation over seeds. Every number is in results.csv,"]
    lines += ["every image's scores are in predictions.csv.", ""]
    for name in dict.fromkeys(row.task for row in rows):
        task_rows = [row for row in rows if row.task == name]
        task_predictions = [one for one in predictions if one.key.task == name]
        metrics = tuple(dict.fromkeys(row.metric for row in task_rows))
        shown = _shown(TASKS[name].metrics, metrics)
        lines += [f"## {name}", "", *_markdown(*_table(task_rows, TASKS[name].metrics)), ""]
        if others := tuple(metric for metric in metrics if metric not in shown):
            lines += ["<details><summary>all metrics</summary>", "", *_markdown(*_table(task_rows, others)), ""]
            lines += ["</details>", ""]
        drawn = TASKS[name].figures(task_rows, task_predictions, folder) if task_predictions else []
        lines += [line for path in drawn for line in (f"![{path.stem}]({path.name})", "")]
        paths += drawn
    lines += ["## settings", ""]
    lines += [f"- {key}: {value}" for key, value in settings.items() if value not in (None, [], ())]
    (folder / REPORT).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*paths, folder / REPORT]


def aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table: the first column to the left, all others to the right."""
    columns = []
    for i, cells in enumerate(zip(heads, *rows, strict=True)):
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if i == 0 else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _table(rows: Sequence[Row], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: a line per target, probe and number of labels, a column per metric that is there."""
    summaries = summarise(rows)
    columns = _shown(metrics, tuple(dict.fromkeys(summary.metric for summary in summaries)))
    groups: dict[tuple[str, str, str], dict[str, Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.target, summary.probe, summary.labels), {})[summary.metric] = summary
    lines = []
    for key, group in groups.items():
        seeds = max(summary.seeds for summary in group.values())
        lines.append([*key, str(seeds), *(_cell(group.get(metric)) for metric in columns)])
    return [*HEADS, *columns], lines


def _shown(metrics: Sequence[str], there: Sequence[str]) -> list[str]:
    """Those that are there, in order; `mae` stands for `mae[mass]`, but not where `mae` itself is there."""
    return [
        name
        for metric in metrics
        for name in there
        if name == metric or (metric not in there and name.partition("[")[0] == metric)
    ]


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.metric in COUNTS:
        return f"{summary.mean:,.0f}"
    if summary.mean != 0 and not 1e-3 <= abs(summary.mean) < 1e4:
        return f"{summary.mean:.3g}" + ("" if summary.std is None else f" ± {summary.std:.1g}")
    return f"{summary.mean:.4f}" + ("" if summary.std is None else f" ± {summary.std:.4f}")


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
