"""What `evaluate` and `finetune` both ask: which labelled images, how many labels, how often."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from ssl_lens.cli.console import path_argument
from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.errors import InputError


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds the images and the labels to learn from."""
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
        "--split",
        metavar="FILE",
        type=Path,
        help="names of the images to judge by, not train; default: those that the set holds out, else a fifth",
    )
    parser.add_argument(
        "--labels-per-class",
        metavar="N",
        type=count_or_all,
        nargs="+",
        help="sizes of the labelled subsets; those that the set cannot give are left out (default: 10 100 all)",
    )
    parser.add_argument(
        "--target-column",
        "--target",
        metavar="NAME",
        nargs="+",
        default=[],
        dest="target_columns",
        help="measure these columns of the table",
    )
    parser.add_argument(
        "--log-target",
        metavar="NAME",
        nargs="+",
        default=[],
        dest="log_targets",
        help="those of them of which to learn the decimal logarithm, as they span decades",
    )
    parser.add_argument(
        "--labels",
        metavar="N",
        type=count_or_all,
        nargs="+",
        help="with --target-column: sizes of the random subsets to learn from (default: 100 all)",
    )
    parser.add_argument("--seeds", type=positive, default=5, help="random subsets of each size (default %(default)s)")
    parser.add_argument("--out", metavar="FOLDER", type=path_argument, help="default: in eval/ of the run or export")


def given_set(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_set` as keywords of `evaluate` and `finetune`; what was not given is not there."""
    keywords: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("data", "layout", "table", "split", "target_columns", "log_targets", "seeds", "save")
    }
    keywords |= {
        name: getattr(options, name) for name in ("labels", "labels_per_class") if getattr(options, name) is not None
    }
    if options.labels and not options.target_columns:
        raise InputError("--labels needs --target-column NAME, the column of a table to measure")
    return keywords


def output_folder(options: argparse.Namespace, model: str, name: str, default: Path) -> Path:
    """Where results go: as asked, else in the run or export, else in a folder called as the network or recipe.

    Raises: InputError if a folder that was not asked for holds results of, perhaps, other settings.
    """
    if options.out is not None:
        return options.out
    if Path(model).is_dir():
        return Path(model) / "eval" / name
    folder = default / Path(model).stem
    if (folder / "results.csv").exists():
        raise InputError(f"{folder} holds results already; give --out FOLDER for new ones, or remove it")
    return folder


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def count_or_all(text: str) -> int | None:
    """A number of labels, or None for the word `all`."""
    return None if text == "all" else positive(text)
