"""What the commands take from the console, and what they say while they run."""

import argparse
import contextlib
import logging
from pathlib import Path


def text_argument(text: str) -> str:
    """A path or address as it was given; refused are none at all, and bytes that could not be printed."""
    if not text:  # such as a variable of the shell that is not set; `Path` would take the working folder
        raise argparse.ArgumentTypeError("is empty; give a path")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError("is no UTF-8; rename it")
    return text


def path_argument(text: str) -> Path:
    """The same, as a path."""
    return Path(text_argument(text))


def show_progress() -> None:
    """Shows this package's messages of level INFO and everybody's warnings, as plain lines on stderr."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ssl_lens").setLevel(logging.INFO)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # counts the folds it skips
    with contextlib.suppress(ImportError):
        from astropy import log  # imported first, since its logger has to be of its own class

        log.setLevel(logging.ERROR)  # what it warns of stands in the reason of an image left out
