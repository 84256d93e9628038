"""The two files that everything else reads: one long table of results, and what was said of every image."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RESULTS, PREDICTIONS, SETTINGS, TRAINING = "results.csv", "predictions.csv", "results.json", "training.csv"
ALL, NONE = "all", "none"  # labels: every one there is; none needed
SPLIT = "test"  # of every image that is judged


class Key(NamedTuple):
    """What a result is of.

    Attributes:
        target: the run, export or network, `untrained`, `pixels`, or `constant` for what needs none.
        labels: how many were learned from (per class, for classes), `all` or `none`.
    """

    target: str
    task: str
    probe: str
    labels: str
    seed: int


class Row(NamedTuple):
    """One line of the table."""

    target: str
    task: str
    probe: str
    labels: str
    seed: int
    metric: str
    value: float


class Prediction(NamedTuple):
    """What was said of the images that judge.

    Shapes: truth [M]: an index into `classes` or a number; NaN where nobody knows. scores [M, C]: of the classes; or
    [M, 1] without classes.

    Attributes:
        output: what was asked: `class`, `anomaly` or the name of a number.
    """

    key: Key
    output: str
    names: tuple[str, ...]
    truth: np.ndarray
    scores: np.ndarray
    classes: tuple[str, ...] = ()


class Summary(NamedTuple):
    """Mean of a metric over seeds, and its sample standard deviation; None of a single seed."""

    target: str
    task: str
    probe: str
    labels: str
    metric: str
    mean: float
    std: float | None
    seeds: int


def summarise(rows: Iterable[Row]) -> list[Summary]:
    """One summary per target, task, probe, number of labels and metric, in order of first appearance."""
    groups: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row in rows:
        groups.setdefault((row.target, row.task, row.probe, row.labels, row.metric), []).append(row.value)
    return [
        Summary(*key, float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))
        for key, values in groups.items()
    ]


class Writer:
    """Appends to both files as results come, so that an interrupted evaluation leaves what it had.

    Args:
        folder: is made; files of an evaluation before are replaced. None: nothing is written.
        classes: of the images, each of which has a column of scores.
    """

    def __init__(self, folder: Path | None, classes: Sequence[str]) -> None:
        self.folder, self.classes = folder, tuple(classes)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._start(RESULTS, Row._fields)
            scores = [f"score {name}" for name in classes]
            self._start(PREDICTIONS, [*Key._fields, "name", "split", "output", "truth", "predicted", *scores])

    def add(self, rows: Sequence[Row], predictions: Sequence[Prediction]) -> None:
        """Writes what is known of one fitted probe."""
        if self.folder is not None:
            self._append(RESULTS, [(*row[:-1], f"{row.value:.8g}") for row in rows])
            for prediction in predictions:
                self._append(PREDICTIONS, self._lines(prediction))

    def _lines(self, prediction: Prediction) -> list[list[Any]]:
        lines: list[list[Any]] = []
        named = bool(prediction.classes)
        for name, truth, scores in zip(prediction.names, prediction.truth, prediction.scores, strict=True):
            said = prediction.classes[int(scores.argmax())] if named else f"{scores[0]:.8g}"
            known = "" if np.isnan(truth) else prediction.classes[int(truth)] if named else f"{truth:.8g}"
            line = [*prediction.key, name, SPLIT, prediction.output, known, said]
            lines.append([*line, *([f"{score:.6g}" for score in scores] if named else [""] * len(self.classes))])
        return lines

    def _start(self, file: str, heads: Sequence[str]) -> None:
        assert self.folder is not None
        (self.folder / file).unlink(missing_ok=True)
        self._append(file, [heads])

    def _append(self, file: str, lines: Iterable[Sequence[Any]]) -> None:
        assert self.folder is not None
        with (self.folder / file).open("a", newline="", encoding="utf-8") as opened:
            csv.writer(opened).writerows(lines)


class TrainingLog:
    """Writes one line of training.csv per epoch, at once; without a folder nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.path = None if folder is None else folder / TRAINING
        self._start = time.monotonic()
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)

    def add(self, target: str, labels: str, seed: int, images: int, epoch: Any) -> None:
        """Notes an epoch, a named tuple of numbers; seconds count from the start of all training."""
        if self.path is None:
            return
        if not self.path.exists():
            self._write(["target", "labels", "seed", "images", *epoch._fields, "seconds"])
        numbers = ["" if value is None else f"{value:.6g}" for value in epoch]
        self._write([target, labels, seed, images, *numbers, f"{time.monotonic() - self._start:.1f}"])

    def _write(self, line: Sequence[Any]) -> None:
        assert self.path is not None
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(line)


def read_rows(folder: Path) -> list[Row]:
    """The table in results.csv."""
    with (folder / RESULTS).open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    return [
        Row(target, task, probe, labels, int(seed), metric, float(value))
        for target, task, probe, labels, seed, metric, value in lines
    ]


def read_predictions(folder: Path) -> list[Prediction]:
    """What predictions.csv holds, in the order in which it was said."""
    groups: dict[tuple[Key, str], list[dict[str, str]]] = {}
    with (folder / PREDICTIONS).open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            key = Key(line["target"], line["task"], line["probe"], line["labels"], int(line["seed"]))
            groups.setdefault((key, line["output"]), []).append(line)
    return [_prediction(key, output, lines) for (key, output), lines in groups.items()]


def _prediction(key: Key, output: str, lines: list[dict[str, str]]) -> Prediction:
    names = tuple(line["name"] for line in lines)
    classes = tuple(head.removeprefix("score ") for head, value in lines[0].items() if head.startswith("score "))
    if output == "class":
        truth = np.array([classes.index(line["truth"]) for line in lines])
        scores = np.array([[float(line[f"score {name}"]) for name in classes] for line in lines])
        return Prediction(key, output, names, truth, scores, classes)
    truth = np.array([float(line["truth"] or "nan") for line in lines])
    return Prediction(key, output, names, truth, np.array([[float(line["predicted"])] for line in lines]))


def write_settings(folder: Path, settings: dict[str, Any], rows: Sequence[Row]) -> None:
    """Writes results.json: how the results came about (JSON-able), and their summary."""
    content = settings | {"summary": [summary._asdict() for summary in summarise(rows)]}
    (folder / SETTINGS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
