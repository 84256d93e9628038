"""What the commands take from the console, and what they say while they run."""

import argparse
import logging
import os
import warnings
from pathlib import Path


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


def show_progress() -> None:
    """Shows this package's messages of level INFO, of the first process alone, and everybody's warnings on stderr."""
    logging.basicConfig(format="%(message)s")
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("ssl_lens").setLevel(logging.INFO)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # counts the folds it skips
    # What astropy warns of stands in the reason of an image left out. Its logger is left alone: named before astropy
    # is imported, it would be one that astropy cannot use.
    warnings.filterwarnings("ignore", module=r"astropy\.")
