"""The command `python eval/finetune.py`: supervised training, judged like the frozen evaluators."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_lens.console import show_progress
from ssl_lens.data.images import ImageSet, load_images
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.evaluation.arguments import finetune_parser
from ssl_lens.evaluation.augment import check_augmentation
from ssl_lens.evaluation.classification import classify, train_classifier
from ssl_lens.evaluation.command import log_result, settings_of
from ssl_lens.evaluation.features import preprocessed
from ssl_lens.evaluation.finetune import Epoch, Settings, Trainer, training_processes
from ssl_lens.evaluation.history import History
from ssl_lens.evaluation.protocol import Division, Prediction, Result, divide_labelled, few_label_results
from ssl_lens.evaluation.report import summarise, table, write_numbers, write_report
from ssl_lens.evaluation.start import Start, from_backbone, from_recipe, recipe_of
from ssl_lens.models.backbone import Backbone
from ssl_lens.recipe import Recipe

DEFAULT_FOLDER = Path("runs/supervised")  # for results of what has no folder of its own


@one_line_errors
def finetune(arguments: Sequence[str] | None = None) -> None:
    """The command `python eval/finetune.py`."""
    parser = finetune_parser("Supervised training from a pretrained backbone or from scratch.")
    options = parser.parse_intermixed_args(arguments)
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
        division = divide_labelled(images, options.data, options.split, labels_per_class=options.labels_per_class)
        _train_classifiers(trainer, division, _start(options, recipe, division.train), options, out)


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
    train, test = (_prepared(trainer, start, part) for part in division)
    check_augmentation(options.augmentation, *train.shape[2:])
    classes = division.train.classes
    task = _Task(train, division.train.labels, test, len(classes))
    settings = settings_of(options) | {
        "train_images": len(train),
        "test_images": len(test),
        "processes": trainer.accelerator.num_processes,
    }
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
        return Path(options.model) / "eval" / "finetune"
    folder = DEFAULT_FOLDER / _name(options)
    if (folder / "results.csv").exists():
        raise InputError(f"{folder} holds results already; give --out FOLDER for new ones, or remove it")
    return folder
