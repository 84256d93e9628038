"""The one loop: targets x divisions x probes x budgets x seeds, each fit judged by every task about it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.errors import InputError
from ssl_lens.evaluation.division import Division, Divisions, Draw, Question
from ssl_lens.evaluation.probes import probes_named
from ssl_lens.evaluation.probes.features import Features
from ssl_lens.evaluation.probes.probe import FeatureProbe, Fitted, NetworkProbe, Probe
from ssl_lens.evaluation.table import NONE, Key, Prediction, Row, TrainingLog
from ssl_lens.evaluation.targets import Subject, Target
from ssl_lens.evaluation.tasks.task import Task
from ssl_lens.evaluation.turns import turned

logger = logging.getLogger(__name__)

Read = Callable[[PixelPolicy, int | None], ImageSet]
OnFit = Callable[[Target, Probe, Division, Draw, Fitted], None]


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how often.

    Attributes:
        read: the images, as a target needs them.
        probes: None: those that each task names.
        log: notes the epochs of training.
        on_fit: is given every fitted probe.
        counts: of images to train on and to judge by, by task; is filled in.
    """

    read: Read
    question: Question
    tasks: Sequence[Task]
    probes: Sequence[Probe] | None
    seeds: int
    log: TrainingLog = field(default_factory=lambda: TrainingLog(None))
    on_fit: OnFit = lambda target, probe, division, draw, fitted: None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)


def results(protocol: Protocol, subjects: Sequence[Subject]) -> Iterator[tuple[list[Row], list[Prediction]]]:
    """Rows and predictions of one fitted probe after the other.

    Raises: InputError if the images cannot be divided as a task needs, or no task has a probe.
    """
    for subject in subjects:  # before the first of them takes its time
        subject.check(*protocol.read(subject.policy, subject.in_channels).images.shape[2:])
    said_constant: set[str] = set()  # tasks whose constant predictor, which needs no target, has been judged
    for subject in subjects:
        images = protocol.read(subject.policy, subject.in_channels)
        divisions = Divisions(images, protocol.question)
        for division, tasks in _by_division(protocol.tasks, divisions):
            for task in tasks:
                protocol.counts[task.name] = {"train": len(division.train), "test": len(division.test)}
            target = subject.open(images.subset(division.train))
            inputs = _Inputs(target, images, division)
            for probe in chosen_probes(protocol.probes, tasks, division):
                judges = [task for task in tasks if task.takes(probe, division)]
                name = target.name
                if isinstance(probe, FeatureProbe) and not probe.uses_features:
                    judges = [task for task in judges if task.name not in said_constant and len(task.turns) == 1]
                    said_constant.update(task.name for task in judges)
                    name = probe.name
                for draw, fitted, inputs_of in _fits(protocol, probe, target, division, inputs) if judges else ():
                    yield _judged(name, probe, draw, fitted, inputs_of, judges, division, images)


def chosen_probes(asked: Sequence[Probe] | None, tasks: Sequence[Task], division: Division) -> list[Probe]:
    """The probes to fit for tasks about one division, each once.

    Raises: InputError if a task has none.
    """
    if asked is None:
        probes = probes_named(list(dict.fromkeys(name for task in tasks for name in (*task.probes, *task.always))))
    else:
        names = [probe.name for probe in asked]
        always = dict.fromkeys(name for task in tasks for name in task.always if name not in names)
        probes = [*asked, *probes_named(list(always))]
    for task in tasks:
        if not any(task.takes(probe, division) and probe.name not in task.always for probe in probes):
            if task.always and not set(task.probes) - set(task.always):
                continue
            asked_names = ", ".join(probe.name for probe in probes)
            raise InputError(f"none of the probes {asked_names} can do {task.name}; add {' or '.join(task.probes)}")
    return probes


def _by_division(tasks: Sequence[Task], divisions: Divisions) -> list[tuple[Division, list[Task]]]:
    groups: dict[int, tuple[Division, list[Task]]] = {}
    for task in tasks:
        division = task.divide(divisions)
        groups.setdefault(id(division), (division, []))[1].append(task)
    return list(groups.values())


class _Inputs:
    """What probes are given of a target's images, each made once and when first asked for."""

    def __init__(self, target: Target, images: ImageSet, division: Division) -> None:
        self.target, self.images, self.division = target, images, division
        self._turned: dict[int, np.ndarray] = {}
        self._prepared: dict[str, Tensor] = {}

    def train(self) -> np.ndarray:
        """Features of the images to train on, [N, F]."""
        return self.target.features(self.images, self.division.train)

    def test(self, turn: int) -> np.ndarray:
        """Features of the images that judge, turned, [M, F]."""
        if not turn:
            return self.target.features(self.images, self.division.test)
        if turn not in self._turned:
            self._turned[turn] = self.target.turned_features(self.images.subset(self.division.test), turn)
        return self._turned[turn]

    def prepared(self, part: str, device: torch.device) -> Tensor:
        """What networks see of the part `train` or `test`."""
        if part not in self._prepared:
            index = self.division.train if part == "train" else self.division.test
            self._prepared[part] = self.target.prepared(self.images.subset(index), device)
        return self._prepared[part]


InputsOf = Callable[[int], object]  # turn -> what the fitted probe is to answer about


def _fits(
    protocol: Protocol, probe: Probe, target: Target, division: Division, inputs: _Inputs
) -> Iterator[tuple[Draw, Fitted, InputsOf]]:
    """Fits a probe to every subset of labels."""
    if isinstance(probe, NetworkProbe) and target.network is None:
        logger.info("%s: there is no network to train", target.name)
        return
    if isinstance(probe, Features):
        draws: Iterator[Draw] = iter([Draw(NONE, 0, np.arange(len(division.train)))])
    else:
        draws = division.draws(protocol.seeds, repeat_all=probe.repeats)
    if isinstance(probe, FeatureProbe):
        yield from _feature_fits(protocol, probe, target, division, inputs, draws)
    else:
        assert isinstance(probe, NetworkProbe)
        yield from _network_fits(protocol, probe, target, division, inputs, draws)


def _feature_fits(
    protocol: Protocol, probe: FeatureProbe, target: Target, division: Division, inputs: _Inputs, draws: Iterator[Draw]
) -> Iterator[tuple[Draw, Fitted, InputsOf]]:
    if not probe.uses_features:
        nothing = np.empty((len(division.train), 0)), np.empty((len(division.test), 0))
        for draw in draws:
            fitted = probe.fit(nothing[0][draw.index], division.learned.subset(draw.index), seed=draw.seed)
            yield draw, fitted, lambda turn: nothing[1]
        return
    map_features = probe.map(inputs.train())
    train = map_features(inputs.train())
    mapped: dict[int, np.ndarray] = {}

    def test(turn: int) -> np.ndarray:
        if turn not in mapped:
            mapped[turn] = map_features(inputs.test(turn))
        return mapped[turn]

    for draw in draws:
        fitted = probe.fit(train[draw.index], division.learned.subset(draw.index), seed=draw.seed)
        protocol.on_fit(target, probe, division, draw, fitted)
        yield draw, fitted, test


def _network_fits(
    protocol: Protocol, probe: NetworkProbe, target: Target, division: Division, inputs: _Inputs, draws: Iterator[Draw]
) -> Iterator[tuple[Draw, Fitted, InputsOf]]:
    assert target.network is not None
    images = inputs.prepared("train", probe.device)
    for draw in draws:
        fitted = probe.fit(
            images[torch.from_numpy(draw.index).to(images.device)],
            division.learned.subset(draw.index),
            seed=draw.seed,
            frozen=target.network(draw.seed),
            trained=target.trained,
            on_epoch=partial(protocol.log.add, target.name, draw.labels, draw.seed, len(draw.index)),
        )
        protocol.on_fit(target, probe, division, draw, fitted)
        yield draw, fitted, lambda turn: turned(inputs.prepared("test", probe.device), turn)


def _judged(
    target: str,
    probe: Probe,
    draw: Draw,
    fitted: Fitted,
    inputs_of: InputsOf,
    judges: Sequence[Task],
    division: Division,
    images: ImageSet,
) -> tuple[list[Row], list[Prediction]]:
    names = tuple(images.names[i] for i in division.test)
    rows: list[Row] = []
    predictions: list[Prediction] = []
    for task in judges:
        key = Key(target, task.name, probe.name, draw.labels, draw.seed)
        if len(task.turns) == 1:
            said = fitted.predict(inputs_of(task.turns[0]))[None]
        else:
            said = np.stack([fitted.outputs(inputs_of(turn)) for turn in task.turns])
        scores = task.scores(division.truth, said)
        if fitted.parameters is not None and len(task.turns) == 1:
            scores["parameters"] = fitted.parameters
        rows += [Row(*key, metric, value) for metric, value in scores.items()]
        predictions += task.predictions(key, names, division.truth, said)
        first, value = next(iter(scores.items()))
        logger.info("%s, %s, %s labels, seed %d: %s %s %.4f", *key[:1], *key[2:], task.name, first, value)
    return rows, predictions
