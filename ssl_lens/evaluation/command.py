"""The commands in eval/: load, divide, classify, report."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssl_lens import build
from ssl_lens.console import show_progress
from ssl_lens.data.images import load_images
from ssl_lens.data.preprocess import Preprocess
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.arguments import finetune_parser, frozen_parser, positive
from ssl_lens.evaluation.features import extract, preprocessed, whitened
from ssl_lens.evaluation.finetune import Settings, finetuned_probabilities
from ssl_lens.evaluation.knn import knn_probabilities, knn_scores
from ssl_lens.evaluation.linear_probe import linear_probabilities
from ssl_lens.evaluation.protocol import Division, Result, divide_labelled, few_label_results
from ssl_lens.evaluation.report import summarise, table, write_report
from ssl_lens.export import FrozenBackbone, load_backbone, untrained_backbone
from ssl_lens.models.backbone import Backbone
from ssl_lens.recipe import load_recipe

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


@one_line_errors
def finetune(arguments: Sequence[str] | None = None) -> None:
    """The command `python eval/finetune.py`."""
    options = finetune_parser("Supervised training from a pretrained backbone or from scratch.").parse_args(arguments)
    settings = Settings(
        pooling=options.pooling,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        weight_decay=options.weight_decay,
        augmentation=options.augmentation,
        bf16=options.bf16,
    )
    show_progress()
    out = _output_folder(options, "finetune")
    task = _recipe_task(options) if _is_recipe(options.model) else _backbone_task(options)
    device = _device()
    train, test = (preprocessed(task.preprocess, part.images).to(device) for part in task.division)
    results: list[Result] = []
    for method, start in task.start_from.items():

        def classify(index: np.ndarray, seed: int, start: Callable[[int], Backbone] = start) -> np.ndarray:
            return finetuned_probabilities(
                start(seed).to(device),
                train[index],
                task.division.train.labels[index],
                test,
                num_classes=len(task.division.train.classes),
                settings=settings,
                seed=seed,
            )

        results += _results(method, classify, task.division, options, repeat_all=True)
    _report(results, task.division, options, out)


def _evaluate_frozen(
    options: argparse.Namespace, command: str, classifier: FeatureClassifier, *, whiten: int | None
) -> None:
    show_progress()
    out = _output_folder(options, command)
    frozen = load_backbone(options.model).to(_device())
    division = _divide(options, frozen.backbone.in_channels)
    labels, num_classes = division.train.labels, len(division.train.classes)
    results: list[Result] = []
    for method, train, test in _feature_sets(options, frozen, division, whiten):

        def classify(index: np.ndarray, seed: int, train: np.ndarray = train, test: np.ndarray = test) -> np.ndarray:
            return classifier(train[index], labels[index], test, num_classes, seed)

        results += _results(method, classify, division, options, repeat_all=False)
    _report(results, division, options, out)


def _feature_sets(
    options: argparse.Namespace, frozen: FrozenBackbone, division: Division, whiten: int | None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Method, features of the training part, features of the test part; each extracted once."""
    backbones = {options.model.resolve().name: frozen}
    if options.untrained:
        fresh = untrained_backbone(options.model).to(_device())
        backbones["untrained"] = FrozenBackbone(frozen.preprocess, fresh)
    for method, backbone in backbones.items():
        train, test = (extract(backbone, part.images, pooling=options.pooling) for part in division)
        yield method, train, test
        if whiten:
            yield f"{method}, whitened", *whitened(train, test, whiten)
    if options.pixels:
        yield "pixels", *(preprocessed(frozen.preprocess, part.images).flatten(1).numpy() for part in division)


class _Task(NamedTuple):
    """What fine-tuning needs: images, their preprocessing, and for every method where a seed's training starts."""

    division: Division
    preprocess: Preprocess
    start_from: dict[str, Callable[[int], Backbone]]


def _backbone_task(options: argparse.Namespace) -> _Task:
    frozen = load_backbone(options.model)
    start_from = {f"{options.model.resolve().name} fine-tuned": lambda seed: frozen.backbone}
    if options.scratch:
        start_from["from scratch"] = lambda seed: untrained_backbone(options.model, seed=seed)
    return _Task(_divide(options, frozen.backbone.in_channels), frozen.preprocess, start_from)


def _recipe_task(options: argparse.Namespace) -> _Task:
    recipe = load_recipe(options.model)
    division = _divide(options, None)
    raw = division.train.images
    preprocess = build.preprocess(recipe, raw)

    def start(seed: int) -> Backbone:
        torch.manual_seed(seed)
        return build.backbone(recipe, raw.shape[1])

    return _Task(division, preprocess, {f"{options.model.stem} from scratch": start})


def _divide(options: argparse.Namespace, in_channels: int | None) -> Division:
    images = load_images(options.data, in_channels=in_channels)
    return divide_labelled(images, options.data, options.split, labels_per_class=options.labels_per_class)


def _results(
    method: str,
    classify: Callable[[np.ndarray, int], np.ndarray],
    division: Division,
    options: argparse.Namespace,
    *,
    repeat_all: bool,
) -> list[Result]:
    results = []
    for result in few_label_results(
        method,
        classify,
        division,
        labels_per_class=options.labels_per_class,
        seeds=options.seeds,
        repeat_all=repeat_all,
    ):
        count = result.labels_per_class or "all"
        logger.info("%s, %s labels per class, seed %d: accuracy %.4f", method, count, result.seed, result.accuracy)
        results.append(result)
    return results


def _report(results: Sequence[Result], division: Division, options: argparse.Namespace, out: Path) -> None:
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    settings |= {"train_images": len(division.train), "test_images": len(division.test)}
    paths = write_report(results, division.train.classes, out, settings)
    print(table(summarise(results)))
    print("\n".join(str(path) for path in paths))


def _is_recipe(model: Path) -> bool:
    return model.suffix in (".yaml", ".yml")


def _output_folder(options: argparse.Namespace, command: str) -> Path:
    if options.out is None and _is_recipe(options.model):
        raise InputError(f"{options.model} is a recipe, which has no folder for results; give --out FOLDER")
    return options.out or options.model / "eval" / command


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
