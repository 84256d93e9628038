"""`evaluate` and `finetune`: from names of things to results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.formats.planes import Names
from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import arguments_named
from ssl_lens.evaluation import table
from ssl_lens.evaluation.best_probe import BestProbe
from ssl_lens.evaluation.division import Question
from ssl_lens.evaluation.probes import probes_named
from ssl_lens.evaluation.probes.finetune import Finetune
from ssl_lens.evaluation.probes.probe import NetworkProbe, Probe
from ssl_lens.evaluation.probes.trainer import Settings
from ssl_lens.evaluation.protocol import Protocol, Read, results
from ssl_lens.evaluation.report import summary_text, write_report
from ssl_lens.evaluation.table import Prediction, Row, TrainingLog, Writer
from ssl_lens.evaluation.targets import Subject, subjects
from ssl_lens.evaluation.tasks import tasks_named
from ssl_lens.files import check_folder
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.representation.pooling_names import Pooling

FEW_LABELS_PER_CLASS: tuple[int | None, ...] = (10, 100, None)  # None: all
FEW_LABELS: tuple[int | None, ...] = (100, None)
SEEDS = 5
DATA = {"path": "data"}  # what reading images calls the argument


@dataclass
class Results:
    """What an evaluation found.

    Attributes:
        table: one row per target, task, probe, number of labels, seed and metric.
        predictions: what was said of every image that judges.
        settings: how the results came about, ready for JSON.
        files: what was written.
    """

    table: list[Row]
    predictions: list[Prediction]
    settings: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def summary(self) -> str:
        """The most important metrics as text: mean and spread over seeds, one table per task."""
        return summary_text(self.table)

    def __str__(self) -> str:
        return self.summary()


def evaluate(
    targets: str | Path | FrozenBackbone | Sequence[str | Path | FrozenBackbone],
    *,
    data: str | Path | ImageSet,
    tasks: Sequence[str] | None = None,
    probes: Sequence[str | Probe] | None = None,
    labels_per_class: Sequence[int | None] = FEW_LABELS_PER_CLASS,
    labels: Sequence[int | None] = FEW_LABELS,
    seeds: int = SEEDS,
    target_columns: Sequence[str] = (),
    log_targets: Sequence[str] = (),
    anomaly: Sequence[str] = (),
    untrained: bool = False,
    pixels: bool = False,
    split: Path | None = None,
    layout: LayoutName = "auto",
    table: Path | None = None,
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
    pooling: Pooling | None = None,
    out: Path | None = None,
    save: Path | None = None,
) -> Results:
    """Measures what frozen backbones learned: every task with every probe, few labels and all.

    Args:
        targets: folders of runs or exports, frozen backbones, or names of networks or recipes (fresh weights).
        data: images in one folder per class, a table or a pack. Those that a set holds out are judged by.
        tasks: classification, regression, anomaly, retrieval, rotation; None: regression if there are
            `target_columns`, anomaly if classes are declared `anomaly`, else classification.
        probes: names, or probes as configured; None: those that suit each task.
        labels_per_class: sizes of the subsets that classes are learned from, None for all; what a set cannot give is
            left out.
        labels: the same for numbers, images in all.
        seeds: random subsets of each size.
        target_columns: numbers in the images' table to measure; log_targets: those whose decimal logarithm is measured.
        anomaly: classes that are anomalies, of which a detector sees none.
        untrained: also the same networks with fresh weights; pixels: also the preprocessed pixels themselves.
        split: file that names the images to judge by.
        layout, table, files: what the folders mean, a table of labels and numbers, and which files are read, as for
            `load_images`.
        planes, noise, mask: which planes of the files are read, in the place of those that a backbone was trained on.
        pooling: of the features; None: what a backbone says, stage_rings for a run.
        out: folder for the files; None: nothing is written.
        save: folder for the first target with its probe (linear, ridge or finetune), for `ssl-lens predict`.

    Raises: InputError if something given cannot be used.
    """
    models = [targets] if isinstance(targets, str | Path | FrozenBackbone) else list(targets)
    question = Question(split, labels_per_class, labels, target_columns, log_targets, anomaly)
    if tasks is None:
        tasks = ["regression"] if target_columns else ["anomaly"] if anomaly else ["classification"]
    chosen = None if probes is None else probes_named(probes)
    found = subjects(models, untrained=untrained, pixels=pixels, pooling=pooling)
    settings = {"targets": [subject.name for subject in found], "pooling": pooling}
    return _run(
        _Plan(
            found, data, layout, table, files, planes, noise, mask, question, tasks, chosen, seeds, settings, out, save
        ),
    )


def finetune(
    model: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | Path | ImageSet,
    settings: Settings | None = None,
    labels_per_class: Sequence[int | None] = FEW_LABELS_PER_CLASS,
    labels: Sequence[int | None] = FEW_LABELS,
    seeds: int = SEEDS,
    target_columns: Sequence[str] = (),
    log_targets: Sequence[str] = (),
    scratch: bool = False,
    split: Path | None = None,
    layout: LayoutName = "auto",
    table: Path | None = None,
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
    out: Path | None = None,
    save: Path | None = None,
) -> Results:
    """Trains whole networks on labelled images, on all processes of `accelerate launch`, and judges them as `evaluate`.

    Args:
        model: folder of a run or an export, or the name of a network or a recipe, which begins with fresh weights.
        overrides: `key=value` changes to the recipe.
        settings: of the training.
        target_columns: numbers to learn; none: the classes.
        scratch: of a run or export, also train the same network from random weights.
        save: folder for the network trained on most images, of several seeds that with the lowest validation loss.
        data, labels_per_class, labels, seeds, log_targets, split, layout, table, files, planes, noise, mask, out: as
            for `evaluate`.

    Raises: InputError if something given cannot be used.
    """
    settings = settings or Settings()
    question = Question(split, labels_per_class, labels, target_columns, log_targets)
    tasks = ["regression" if target_columns else "classification", "rotation"]
    found = subjects([model], overrides, untrained=scratch, pooling=settings.pooling)
    kept = {"targets": [subject.name for subject in found], "overrides": list(overrides)}
    kept |= dataclasses.asdict(settings)
    return _run(
        _Plan(
            found,
            data,
            layout,
            table,
            files,
            planes,
            noise,
            mask,
            question,
            tasks,
            [Finetune(settings)],
            seeds,
            kept,
            out,
            save,
        ),
    )


@dataclass(frozen=True)
class _Plan:
    subjects: list[Subject]
    data: str | Path | ImageSet
    layout: LayoutName
    table: Path | None
    files: str | None
    planes: Names | None
    noise: Names | None
    mask: Names | None
    question: Question
    tasks: Sequence[str]
    probes: list[Probe] | None
    seeds: int
    settings: dict[str, Any]
    out: Path | None
    save: Path | None


def _run(plan: _Plan) -> Results:
    """Evaluates, and writes as results come; of several processes one."""
    tasks = tasks_named(plan.tasks)
    for folder in (plan.out, plan.save):
        if folder is not None:
            check_folder(folder)
    best = BestProbe(plan.subjects[0].name)
    with ExitStack() as stack:
        for probe in plan.probes or []:
            stack.enter_context(probe.ready())
        networks = [probe for probe in plan.probes or [] if isinstance(probe, NetworkProbe)]
        speaks = all(probe.speaks for probe in networks)
        out = plan.out if speaks else None
        read = _reader(plan, networks)
        protocol = Protocol(
            read, plan.question, tasks, plan.probes, plan.seeds, TrainingLog(out if networks else None), best.offer
        )
        found = Results([], [], _settings(plan))
        writer: Writer | None = None
        for rows, predictions in results(protocol, plan.subjects):
            if writer is None:
                writer = Writer(out, read(plan.subjects[0].policy, plan.subjects[0].in_channels).classes)
            writer.add(rows, predictions)
            found.table += rows
            found.predictions += predictions
        images = read(plan.subjects[0].policy, plan.subjects[0].in_channels)
        found.settings |= {"classes": list(images.classes), "images": len(images), "divisions": protocol.counts}
        if out is not None:
            _write(found, out)
        if plan.save is not None and speaks:
            best.save(plan.save, images.images.shape[2:])
            found.files.append(plan.save)
    return found


def _write(found: Results, out: Path) -> None:
    table.write_settings(out, found.settings, found.table)
    files = [out / name for name in (table.RESULTS, table.PREDICTIONS, table.SETTINGS)]
    found.files += [*files, *write_report(found.table, found.predictions, found.settings, out)]


def _reader(plan: _Plan, networks: Sequence[NetworkProbe]) -> Read:
    """Reads the images once for each way of reading them; the first process first, as it fills the cache."""

    @cache
    def read(policy: PixelPolicy, in_channels: int | None) -> ImageSet:
        if isinstance(plan.data, ImageSet):
            return plan.data
        with ExitStack() as stack:
            for probe in networks[:1]:
                stack.enter_context(probe.first_process_first())
            with arguments_named(DATA):
                return load_images(
                    Path(plan.data),
                    in_channels=in_channels,
                    policy=policy.with_planes(plan.planes, plan.noise, plan.mask),
                    layout=plan.layout,
                    table=plan.table,
                    files=plan.files,
                )

    return read


def _settings(plan: _Plan) -> dict[str, Any]:
    question = dataclasses.asdict(plan.question)
    counts = {
        key: [table.ALL if count is None else count for count in question.pop(key)]
        for key in ("labels_per_class", "labels")
    }
    return {
        "data": "images in memory" if isinstance(plan.data, ImageSet) else str(plan.data),
        **plan.settings,
        "tasks": list(plan.tasks),
        "probes": None if plan.probes is None else [probe.name for probe in plan.probes],
        **counts,
        **{key: str(value) if isinstance(value, Path) else value for key, value in question.items()},
        "seeds": plan.seeds,
        "layout": plan.layout,
        "table": None if plan.table is None else str(plan.table),
        "files": plan.files,
        "planes": plan.planes,
        "noise": plan.noise,
        "mask": plan.mask,
    }
