"""The arguments that several commands share, and the names by which errors speak of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.errors import InputError

IMAGES = "DIR"  # what help and errors call the folder of images that a command is given without a flag
READING_KEYS = {
    name: f"data.{name}" for name in ("mask_value", "max_masked", "sizes", "size", "in_channels", "center_crop", "bin")
}  # what a network's recipe says of its images, and no flag


def flags(*names: str) -> dict[str, str]:
    """The flag of each argument, for `arguments_named`."""
    return {name: f"--{name.replace('_', '-')}" for name in names}


READING_FLAGS = flags("files", "planes", "noise", "mask")  # of `add_files`
IMAGES_NAMES = (
    READING_KEYS | READING_FLAGS | flags("layout", "table", "batch_size") | {"data": IMAGES}
)  # of `add_images`
SET_NAMES = (  # of `add_set`
    READING_KEYS
    | READING_FLAGS
    | flags("data", "layout", "table", "split", "labels_per_class", "labels", "seeds", "save")
    | {"target_columns": "--target-column", "log_targets": "--log-target"}
)


def text_argument(text: str) -> str:
    """A path or address as it was given; refused are none at all, and bytes that could not be printed."""
    if not text:  # such as a variable of the shell that is not set; `Path` would take the working folder
        raise argparse.ArgumentTypeError("is empty; give a path")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError("is not UTF-8; rename it")
    return text


def path_argument(text: str) -> Path:
    """The same, as a path."""
    return Path(text_argument(text))


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a recipe and changes to it, as `options.recipe` and `options.overrides`."""
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        type=text_argument,
        help="name of a shipped recipe (`ssl-lens recipes` lists them) or a YAML file",
    )
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="changes to it, such as data.path=DIR optim.epochs=10"
    )


class _Channels(argparse.Action):
    """Three numbers of channels, as a tuple."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def add_rgb(parser: argparse.ArgumentParser) -> None:
    """Adds which channels pictures show, as `options.rgb`."""
    parser.add_argument(
        "--rgb",
        metavar=("R", "G", "B"),
        nargs=3,
        type=int,
        action=_Channels,
        help="channels, from 0, to draw as red, green, blue; default: of PNG, JPEG and TIFF the first three, of others "
        "the last, middle and first",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def count_or_all(text: str) -> int | None:
    """A number of labels, or None for the word `all`."""
    return None if text == "all" else positive(text)


def add_images(parser: argparse.ArgumentParser) -> None:
    """Adds a set of images, and what says what is known of them."""
    parser.add_argument("data", metavar=IMAGES, type=path_argument, help="folder of images, table, pack or image file")
    add_files(parser, planes="those of the run; none: those known to be flux", noise="that of the run; none: none")
    parser.add_argument("--table", metavar="FILE", type=path_argument, help="labels and numbers of the images in DIR")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Adds how many images are computed at once."""
    parser.add_argument(
        "--batch-size", metavar="N", type=positive, default=256, help="images computed at once (default %(default)s)"
    )


def add_set(parser: argparse.ArgumentParser) -> None:
    """Adds the images and the labels to learn from."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=path_argument,
        required=True,
        help="images in one folder per class, a table or a pack",
    )
    add_files(parser, planes="those of the run; none: those known to be flux", noise="that of the run; none: none")
    parser.add_argument(
        "--table",
        metavar="FILE",
        type=path_argument,
        help="classes, parts and numbers of the images, a row each; default: targets.csv or the like in --data",
    )
    parser.add_argument(
        "--split",
        metavar="FILE",
        type=path_argument,
        help="names of the images to judge by, not train; default: those that the set holds out, else a fifth",
    )
    parser.add_argument(
        "--labels-per-class",
        metavar="N",
        type=count_or_all,
        nargs="+",
        action="extend",
        help="sizes of the labelled subsets; those that the set cannot give are left out (default: 10 100 all)",
    )
    parser.add_argument(
        "--target-column",
        "--target",
        metavar="NAME",
        nargs="+",
        action="extend",
        default=[],
        dest="target_columns",
        help="measure these columns of the table",
    )
    parser.add_argument(
        "--log-target",
        metavar="NAME",
        nargs="+",
        action="extend",
        default=[],
        dest="log_targets",
        help="those of them of which to learn the decimal logarithm, as they span decades",
    )
    parser.add_argument(
        "--labels",
        metavar="N",
        type=count_or_all,
        nargs="+",
        action="extend",
        help="with --target-column: sizes of the random subsets to learn from (default: 100 all)",
    )
    parser.add_argument("--seeds", type=positive, default=5, help="random subsets of each size (default %(default)s)")
    parser.add_argument("--out", metavar="FOLDER", type=path_argument, help="default: in eval/ of the run or export")


def given_set(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_set` as keywords of `evaluate` and `finetune`; what was not given is not there."""
    keywords: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            "data",
            "layout",
            "table",
            "files",
            "planes",
            "noise",
            "mask",
            "split",
            "target_columns",
            "log_targets",
            "seeds",
            "save",
        )
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


def planes_argument(text: str) -> tuple[str | int, ...]:
    """Names and numbers of planes between commas; `none` for none."""
    from ssl_lens.data.formats.planes import plane_names

    planes = () if text == "none" else plane_names(text)
    if "" in planes:
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name; give names or numbers between commas")
    return planes


def add_files(parser: argparse.ArgumentParser, *, planes: str, noise: str) -> None:
    """Adds which files of a folder are read, which planes of them, and what the folders mean.

    Args:
        planes, noise: which are read unless some are named, for the help; masks as noise.
    """
    parser.add_argument("--layout", choices=get_args(LayoutName), default="auto", help="what the folders mean")
    parser.add_argument(
        "--files", metavar="PATTERN", type=text_argument, help="only files of these names, such as '*data.fits'"
    )
    parser.add_argument(
        "--planes",
        metavar="NAMES",
        type=planes_argument,
        help="planes of files, or bands, that are the channels, by name or number, such as VIS,NIR_Y or 1,2 "
        f"(default: {planes})",
    )
    parser.add_argument(
        "--noise",
        metavar="NAMES",
        type=planes_argument,
        help=f"noise, variance or weight: pixels where it is not a positive number are filled (default: {noise})",
    )
    parser.add_argument(
        "--mask",
        metavar="NAMES",
        type=planes_argument,
        help=f"masks or quality flags: pixels that they mark are filled (default: {noise})",
    )
