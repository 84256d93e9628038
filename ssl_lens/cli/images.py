"""What commands ask that are given a set of images."""

from __future__ import annotations

import argparse
from typing import get_args

from ssl_lens.cli.console import path_argument
from ssl_lens.data.folders.layouts import LayoutName


def add_images(parser: argparse.ArgumentParser) -> None:
    """Adds the set, and what says what is known of its images."""
    parser.add_argument(
        "data", metavar="DIR", type=path_argument, help="folder of images, table (.csv, .parquet), pack or image file"
    )
    parser.add_argument("--layout", choices=get_args(LayoutName), default="auto", help="what the folders mean")
    parser.add_argument("--table", metavar="FILE", type=path_argument, help="labels and numbers of the images in DIR")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Adds how many images are computed at once."""
    parser.add_argument(
        "--batch-size", metavar="N", type=_positive, default=256, help="images computed at once (default %(default)s)"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value
