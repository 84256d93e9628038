"""The command `python eval/finetune.py`: supervised training, judged like the frozen evaluators."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_lens.console import show_progress
from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.data.targets import find_table, read_targets
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.arguments import check_finetune, finetune_parser
from ssl_lens.evaluation.augment import check_augmentation
from ssl_lens.evaluation.classification import classify, train_classifier
from ssl_lens.evaluation.command import log_result, settings_of
from ssl_lens.evaluation.features import preprocessed
from ssl_lens.evaluation.finetune import Epoch, Settings, Trainer, training_processes
from ssl_lens.evaluation.history import History
from ssl_lens.evaluation.protocol import Division, Prediction, Result, divide_labelled, few_label_results
from ssl_lens.evaluation.regression import (
    Measurement,
    Quantities,
    RegressionResult,
    divide_quantities,
    few_label_measurements,
    measure,
    train_regressor,
)
from ssl_lens.evaluation.regression_report import (
    draw_regression,
    regression_table,
    scores,
    summarise_scores,
    write_regression_numbers,
)
from ssl_lens.evaluation.report import summarise, table, write_numbers, write_report
from ssl_lens.evaluation.start import Start, from_backbone, from_recipe, recipe_of
from ssl_lens.models.backbone import Backbone
from ssl_lens.recipe import Recipe

logger = logging.getLogger(__name__)

DEFAULT_FOLDER = Path("runs/supervised")  # for results of what has no folder of its own


@one_line_errors
def finetune(arguments: Sequence[str] | None = None) -> None:
    """The command `python eval/finetune.py`."""
    parser = finetune_parser("Supervised training from a pretrained backbone or from scratch.")
    options = parser.parse_intermixed_args(arguments)
    check_finetune(options)
    settings = Settings(
        pooling=options.pooling,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        weight_decay=options.weight_decay,
        patience=options.patience,
        augmentation=options.augmentation,
    )
    with training_processes(settings, bf16=options.bf16) as trainer:
        if trainer.speaks:
            show_progress()
        recipe = recipe_of(options.model, options.overrides)
        out = _output_folder(options, recipe)
        with trainer.accelerator.main_process_first():  # the others find the cache filled
            images = load_images(options.data)
        if options.target is None:
            division = divide_labelled(images, options.data, options.split, labels_per_class=options.labels_per_class)
            _train_classifiers(trainer, division, _start(options, recipe, division.train), options, out)
            return
        targets = read_targets(options.targets or find_table(options.data), options.target)
        train, test = divide_quantities(
            images, targets, options.split, log_targets=options.log_target, labels=options.labels
        )
        _train_regressors(trainer, train, test, _start(options, recipe, train.images), options, out)


class _Task(NamedTuple):
    """Prepared images [N, C, h, w] to train on, with labels int [N], and prepared images to judge by."""

    train: Tensor
    labels: np.ndarray
    test: Tensor
    num_classes: int


def _train_classifiers(
    trainer: Trainer, division: Division, start: Start, options: argparse.Namespace, out: Path
) -> None:
    """Trains, judges and reports every method with every number of labels and every seed."""
    classes = division.train.classes
    train, test = (_prepared(trainer, start, part) for part in division)
    task = _Task(train, division.train.labels, test, len(classes))
    settings = _settings(trainer, options, train, test)
    history = History(out / "training.csv" if trainer.speaks else None)
    results: list[Result] = []
    for method, network in start.networks.items():
        for result in few_label_results(
            method,
            partial(_predict, trainer, task, network, partial(history.add, method)),
            division,
            labels_per_class=options.labels_per_class,
            seeds=options.seeds,
            repeat_all=True,
        ):
            log_result(result)
            results.append(result)
            if trainer.speaks:
                write_numbers(results, classes, out, settings)
    if trainer.speaks:
        paths = write_report(results, classes, out, settings)
        print(table(summarise(results)))
        print("\n".join(str(path) for path in paths))


def _predict(
    trainer: Trainer,
    task: _Task,
    network: Callable[[int], Backbone],
    note: Callable[[int, int, Epoch], None],
    index: np.ndarray,
    seed: int,
) -> Prediction:
    classifier = train_classifier(
        trainer,
        network(seed),
        task.train[torch.from_numpy(index)],
        task.labels[index],
        num_classes=task.num_classes,
        seed=seed,
        on_epoch=partial(note, len(index), seed),
    )
    return classify(trainer, classifier, task.test)


def _train_regressors(
    trainer: Trainer, train: Quantities, test: Quantities, start: Start, options: argparse.Namespace, out: Path
) -> None:
    """As `_train_classifiers`, for numbers."""
    names = [f"log10 {name}" if name in options.log_target else name for name in options.target]
    images, test_images = (_prepared(trainer, start, part.images) for part in (train, test))
    settings = _settings(trainer, options, images, test_images)
    history = History(out / "training.csv" if trainer.speaks else None)
    results: list[RegressionResult] = []
    for method, network in start.networks.items():

        def measure_test(
            index: np.ndarray, seed: int, method: str = method, network: Callable[[int], Backbone] = network
        ) -> Measurement:
            regressor = train_regressor(
                trainer,
                network(seed),
                images[torch.from_numpy(index)],
                train.values[index],
                names=names,
                seed=seed,
                on_epoch=partial(history.add, method, len(index), seed),
            )
            return measure(trainer, regressor, test_images)

        for result in few_label_measurements(
            method, measure_test, train, test, labels=options.labels, seeds=options.seeds
        ):
            results.append(result)
            if trainer.speaks:
                write_regression_numbers(results, names, out, settings)
                logger.info(regression_table(summarise_scores(scores(results[-1:], names))))
    if trainer.speaks:
        paths = [*write_regression_numbers(results, names, out, settings), out / "predicted.png"]
        draw_regression(results, names, paths[-1])
        print(regression_table(summarise_scores(scores(results, names))))
        print("\n".join(str(path) for path in paths))


def _settings(trainer: Trainer, options: argparse.Namespace, train: Tensor, test: Tensor) -> dict[str, Any]:
    """How the results came about; checks on the way that the images can be augmented as asked."""
    check_augmentation(options.augmentation, *train.shape[2:])
    counts = {"train_images": len(train), "test_images": len(test), "processes": trainer.accelerator.num_processes}
    return settings_of(options) | counts


def _start(options: argparse.Namespace, recipe: Recipe | None, train: ImageSet) -> Start:
    if recipe is None:
        return from_backbone(Path(options.model), scratch=options.scratch)
    return from_recipe(recipe, _name(options), train.images)


def _prepared(trainer: Trainer, start: Start, images: ImageSet) -> Tensor:
    """What networks see of an image set: on the device, if half of its free memory holds it."""
    prepared = preprocessed(start.preprocess, images.images)
    if trainer.device.type == "cuda" and prepared.nbytes > torch.cuda.mem_get_info(trainer.device)[0] / 2:
        return prepared
    return prepared.to(trainer.device)


def _name(options: argparse.Namespace) -> str:
    return Path(options.model).stem


def _output_folder(options: argparse.Namespace, recipe: Recipe | None) -> Path:
    """Raises InputError if a folder that was not asked for holds results of, perhaps, other settings."""
    if options.out is not None:
        return options.out
    if recipe is None:
        return Path(options.model) / "eval" / ("finetune" if options.target is None else "regression")
    folder = DEFAULT_FOLDER / _name(options)
    if (folder / "results.csv").exists():
        raise InputError(f"{folder} holds results already; give --out FOLDER for new ones, or remove it")
    return folder
