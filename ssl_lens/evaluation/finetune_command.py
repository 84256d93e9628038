"""The command `python eval/finetune.py`: supervised training, judged like the frozen evaluators."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_lens.cli.console import show_progress
from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.arguments import check_finetune, finetune_parser
from ssl_lens.evaluation.augment import check_augmentation
from ssl_lens.evaluation.classification import classify, train_classifier
from ssl_lens.evaluation.command import log_result, settings_of
from ssl_lens.evaluation.finetune import Predictor, Settings, Trainer, training_processes
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
from ssl_lens.evaluation.saved import BestNetwork, save_network
from ssl_lens.evaluation.start import Start, from_backbone, from_recipe, pixel_policy, recipe_of
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.representation.extract import preprocessed

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
            images = load_images(
                options.data,
                policy=pixel_policy(options.model, recipe),
                layout=options.layout,
                table=options.table,
            )
        if options.target is None:
            division = divide_labelled(images, options.data, options.split, labels_per_class=options.labels_per_class)
            _train_classifiers(_session(trainer, options, recipe, out, *division), division)
            return
        train, test = divide_quantities(
            images, options.target, options.split, log_targets=options.log_target, labels=options.labels
        )
        _train_regressors(_session(trainer, options, recipe, out, train.images, test.images), train, test)


class _Session(NamedTuple):
    """What all trainings of a command share; train and test: prepared images [N, C, h, w]."""

    trainer: Trainer
    options: argparse.Namespace
    start: Start
    train: Tensor
    test: Tensor
    raw_size: tuple[int, int]
    out: Path
    settings: dict[str, Any]
    history: History
    best: BestNetwork

    def offer(self, network: Predictor, outputs: dict[str, Any], method: str, index: np.ndarray, seed: int) -> None:
        """To be saved, if it is of the first method and the best."""
        if method == next(iter(self.start.networks)):
            loss = self.history.best_validation_loss(method, len(index), seed)
            self.best.offer(network, outputs, images=len(index), validation_loss=loss)

    def finish(self, text: str, paths: Sequence[Path]) -> None:
        """Prints the table and what was written, and saves the best network if asked to."""
        print(text)
        print("\n".join(str(path) for path in paths))
        if self.options.save is not None:
            save_network(self.best, self.start.preprocess, self.options.save, self.raw_size)
            print(self.options.save)


def _session(
    trainer: Trainer, options: argparse.Namespace, recipe: Recipe | None, out: Path, train: ImageSet, test: ImageSet
) -> _Session:
    if recipe is None:
        start = from_backbone(Path(options.model), scratch=options.scratch)
    else:
        start = from_recipe(recipe, _name(options), train)
    prepared = [_prepared(trainer, start, part) for part in (train, test)]
    check_augmentation(options.augmentation, *prepared[0].shape[2:])
    return _Session(
        trainer,
        options,
        start,
        *prepared,
        raw_size=train.images.shape[2:],
        out=out,
        settings=settings_of(options)
        | {"train_images": len(train), "test_images": len(test), "processes": trainer.accelerator.num_processes},
        history=History(out / "training.csv" if trainer.speaks else None),
        best=BestNetwork(),
    )


def _train_classifiers(session: _Session, division: Division) -> None:
    """Trains, judges and reports every method with every number of labels and every seed."""
    trainer, options, classes = session.trainer, session.options, division.train.classes
    results: list[Result] = []

    def predict(method: str, index: np.ndarray, seed: int) -> Prediction:
        classifier = train_classifier(
            trainer,
            session.start.networks[method](seed),
            session.train[torch.from_numpy(index)],
            division.train.labels[index],
            num_classes=len(classes),
            seed=seed,
            on_epoch=partial(session.history.add, method, len(index), seed),
        )
        session.offer(classifier, {"classes": list(classes)}, method, index, seed)
        return classify(trainer, classifier, session.test)

    for method in session.start.networks:
        for result in few_label_results(
            method,
            partial(predict, method),
            division,
            labels_per_class=options.labels_per_class,
            seeds=options.seeds,
            repeat_all=True,
        ):
            log_result(result)
            results.append(result)
            if trainer.speaks:
                write_numbers(results, classes, session.out, session.settings)
    if trainer.speaks:
        paths = write_report(results, classes, session.out, session.settings)
        session.finish(table(summarise(results)), paths)


def _train_regressors(session: _Session, train: Quantities, test: Quantities) -> None:
    """As `_train_classifiers`, for numbers."""
    trainer, options = session.trainer, session.options
    names = [f"log10 {name}" if name in options.log_target else name for name in options.target]
    results: list[RegressionResult] = []

    def measure_test(method: str, index: np.ndarray, seed: int) -> Measurement:
        regressor = train_regressor(
            trainer,
            session.start.networks[method](seed),
            session.train[torch.from_numpy(index)],
            train.values[index],
            names=names,
            seed=seed,
            on_epoch=partial(session.history.add, method, len(index), seed),
        )
        outputs = {"targets": names, "mean": regressor.mean.tolist(), "std": regressor.std.tolist()}
        session.offer(regressor.network, outputs, method, index, seed)
        return measure(trainer, regressor, session.test)

    for method in session.start.networks:
        for result in few_label_measurements(
            method, partial(measure_test, method), train, test, labels=options.labels, seeds=options.seeds
        ):
            results.append(result)
            if trainer.speaks:
                write_regression_numbers(results, names, session.out, session.settings)
                logger.info(regression_table(summarise_scores(scores(results[-1:], names))))
    if trainer.speaks:
        paths = [
            *write_regression_numbers(results, names, session.out, session.settings),
            session.out / "predicted.png",
        ]
        draw_regression(results, names, paths[-1])
        session.finish(regression_table(summarise_scores(scores(results, names))), paths)


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
