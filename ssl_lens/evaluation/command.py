"""The commands in eval/ for frozen backbones: load, divide, classify, report."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_lens.cli.console import show_progress
from ssl_lens.data.images import load_images
from ssl_lens.errors import one_line_errors
from ssl_lens.evaluation.arguments import frozen_parser, positive
from ssl_lens.evaluation.linear_probe import linear_probabilities
from ssl_lens.evaluation.protocol import (
    Division,
    Prediction,
    Result,
    count_name,
    divide_labelled,
    few_label_results,
)
from ssl_lens.evaluation.report import summarise, table, write_report
from ssl_lens.representation.extract import extract, preprocessed, whitened
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone, untrained_backbone
from ssl_lens.representation.neighbours import knn_probabilities, knn_scores

logger = logging.getLogger(__name__)

# (train features [N, F], train labels [N], test features [M, F], number of classes, seed) -> probabilities [M, C]
FeatureClassifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]


@one_line_errors
def knn(arguments: Sequence[str] | None = None) -> None:
    """The command `python eval/knn.py`."""
    parser = frozen_parser("Weighted kNN on frozen features, with few labels and with all.")
    parser.add_argument("--k", type=positive, default=20, help="neighbours that vote (default %(default)s)")
    parser.add_argument(
        "--whiten",
        metavar="N",
        type=positive,
        help="also vote on the N leading principal components of the features, whitened by the whole training part",
    )
    options = parser.parse_args(arguments)

    def classify(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        return knn_probabilities(knn_scores(train, labels, test, num_classes=num_classes, k=options.k))

    _evaluate_frozen(options, "knn", classify, whiten=options.whiten)


@one_line_errors
def linear_probe(arguments: Sequence[str] | None = None) -> None:
    """The command `python eval/linear_probe.py`."""
    options = frozen_parser("Logistic regression on frozen features, with few labels and with all.").parse_args(
        arguments
    )

    def classify(train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
        return linear_probabilities(train, labels, test, seed=seed)

    _evaluate_frozen(options, "linear_probe", classify, whiten=None)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """All options, ready for JSON."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def log_result(result: Result) -> None:
    """One line on the console as soon as a classifier is judged."""
    count = count_name(result.labels_per_class)
    logger.info("%s, %s labels per class, seed %d: accuracy %.4f", result.method, count, result.seed, result.accuracy)


def _evaluate_frozen(
    options: argparse.Namespace, command: str, classifier: FeatureClassifier, *, whiten: int | None
) -> None:
    show_progress()
    out = options.out or options.model / "eval" / command
    frozen = load_backbone(options.model, pooling=options.pooling).to(_device())
    images = load_images(
        options.data,
        in_channels=frozen.backbone.in_channels,
        policy=frozen.preprocess.policy,
        layout=options.layout,
        table=options.table,
    )
    division = divide_labelled(images, options.data, options.split, labels_per_class=options.labels_per_class)
    labels, num_classes = division.train.labels, len(division.train.classes)
    results: list[Result] = []
    for method, train, test in _feature_sets(options, frozen, division, whiten):

        def predict(index: np.ndarray, seed: int, train: np.ndarray = train, test: np.ndarray = test) -> Prediction:
            return Prediction(classifier(train[index], labels[index], test, num_classes, seed))

        for result in few_label_results(
            method,
            predict,
            division,
            labels_per_class=options.labels_per_class,
            seeds=options.seeds,
            repeat_all=False,
        ):
            log_result(result)
            results.append(result)
    settings = settings_of(options) | {"train_images": len(division.train), "test_images": len(division.test)}
    paths = write_report(results, division.train.classes, out, settings)
    print(table(summarise(results)))
    print("\n".join(str(path) for path in paths))


def _feature_sets(
    options: argparse.Namespace, frozen: FrozenBackbone, division: Division, whiten: int | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Method, features of the training part, features of the test part; each extracted once."""
    backbones = {options.model.resolve().name: frozen}
    if options.untrained:
        fresh = untrained_backbone(options.model).to(_device())
        backbones["untrained"] = FrozenBackbone(frozen.preprocess, fresh, frozen.pooling)
    for method, backbone in backbones.items():
        train, test = (extract(backbone, part.images) for part in division)
        yield method, train, test
        if whiten:
            yield f"{method}, whitened", *whitened(train, test, whiten)
    if options.pixels:
        yield "pixels", *(preprocessed(frozen.preprocess, part.images).flatten(1).numpy() for part in division)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
