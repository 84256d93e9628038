"""What the commands in eval/ take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from ssl_lens.cli.console import path_argument
from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.errors import InputError
from ssl_lens.evaluation.augment import Augmentation
from ssl_lens.evaluation.finetune import Settings
from ssl_lens.representation.pooling import Pooling

DEFAULTS = Settings()
FEW_LABELS_PER_CLASS: list[int | None] = [10, 100, None]  # None: all
FEW_LABELS: list[int | None] = [100, None]
FROZEN_POOLING: Pooling = "stage_rings"  # the best of the five, by far, on every set measured (README)


def frozen_parser(description: str) -> argparse.ArgumentParser:
    """For classifiers of frozen features."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "model", metavar="RUN_OR_EXPORT", type=Path, help="folder of pretrain.py or of `ssl-lens export`"
    )
    _add_common(parser, pooling=FROZEN_POOLING)
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="default: eval/ in the run or export")
    parser.add_argument("--untrained", action="store_true", help="also evaluate the same network with fresh weights")
    parser.add_argument("--pixels", action="store_true", help="also evaluate the preprocessed pixels themselves")
    return parser


def finetune_parser(description: str) -> argparse.ArgumentParser:
    """For supervised training of a whole network."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="where to start: fresh weights of a network (its name, such as resnet18, or a recipe), or the backbone "
        "of a run or an export (its folder)",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="changes to the recipe, for a name too, such as data.bin=2 data.stretch=asinh model.patch_size=2",
    )
    _add_common(parser, pooling=DEFAULTS.pooling)
    parser.set_defaults(labels_per_class=None)  # not given
    _add_regression(parser)
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="default: eval/finetune in the run or export, runs/supervised/NAME for names and recipes",
    )
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        type=Path,
        help="write the network trained on most images, of several seeds that with the lowest validation loss, as an "
        "export with its head",
    )
    parser.add_argument(
        "--scratch", action="store_true", help="of a run or export, also train the same network from random weights"
    )
    parser.add_argument("--epochs", type=positive, help="default: about 3,000 steps in 10 to 100 epochs")
    parser.add_argument("--batch-size", type=positive, default=DEFAULTS.batch_size)
    parser.add_argument("--lr", type=float, default=DEFAULTS.lr, help="highest learning rate (default %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=DEFAULTS.weight_decay)
    parser.add_argument(
        "--augmentation",
        choices=get_args(Augmentation),
        help="rotations, with flips (default: continuous; with --target none, as only you know which number, such as a "
        "mass, stays when the image is turned)",
    )
    parser.add_argument(
        "--patience",
        type=positive,
        default=DEFAULTS.patience,
        help="stop after so many epochs without a lower validation loss (default %(default)s)",
    )
    parser.add_argument("--bf16", action="store_true", help="train the network in bfloat16")
    return parser


def _add_regression(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="NAME", nargs="+", help="measure these columns of a table, not classes")
    parser.add_argument(
        "--log-target",
        metavar="NAME",
        nargs="+",
        default=[],
        help="those of the targets of which to learn the decimal logarithm, as they span decades",
    )
    parser.add_argument(
        "--labels",
        metavar="N",
        type=count_or_all,
        nargs="+",
        help="with --target: sizes of the random subsets to train on (default: 100 all)",
    )


def _add_common(parser: argparse.ArgumentParser, *, pooling: Pooling) -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=path_argument,
        required=True,
        help="images in one folder per class, a table or a pack",
    )
    parser.add_argument("--layout", choices=get_args(LayoutName), default="auto", help="what the folders mean")
    parser.add_argument(
        "--table",
        metavar="FILE",
        type=Path,
        help="labels and numbers of the images, whose paths in --data are its first column; default: targets.csv or "
        "parameters.csv there",
    )
    parser.add_argument(
        "--labels-per-class",
        metavar="N",
        type=count_or_all,
        nargs="+",
        default=FEW_LABELS_PER_CLASS,
        help="sizes of the labelled subsets (default: 10 100 all)",
    )
    parser.add_argument("--seeds", type=positive, default=5, help="random subsets of each size (default %(default)s)")
    parser.add_argument(
        "--split",
        metavar="FILE",
        type=Path,
        help="names of the images to evaluate on, not train; default: those that the set holds out, else a fifth",
    )
    parser.add_argument(
        "--pooling",
        choices=get_args(Pooling),
        default=pooling,
        help="view: mean of the last map; stats: its mean, maximum and std; rings: its mean and std in concentric "
        "rings; stages, stage_rings: the same of every stage (default %(default)s)",
    )


def check_finetune(options: argparse.Namespace) -> None:
    """Fills in how many labels and which augmentation, where that is left open.

    Raises: InputError for options of classes with --target, and the other way round.
    """
    if options.target is None:
        for option in ("labels", "log_target"):
            if getattr(options, option):
                raise InputError(f"--{option.replace('_', '-')} needs --target NAME, the column of a table to measure")
        options.labels_per_class = options.labels_per_class or FEW_LABELS_PER_CLASS
        options.augmentation = options.augmentation or DEFAULTS.augmentation
        return
    if options.labels_per_class:
        raise InputError("--labels-per-class is for classes; with --target give --labels N, a number of images")
    others = sorted(set(options.log_target) - set(options.target))
    if others:
        raise InputError(f"--log-target {others[0]} is not among --target {' '.join(options.target)}; add it there")
    options.labels = options.labels or FEW_LABELS
    options.augmentation = options.augmentation or "none"


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def count_or_all(text: str) -> int | None:
    """A number of labels, or None for the word `all`."""
    return None if text == "all" else positive(text)
