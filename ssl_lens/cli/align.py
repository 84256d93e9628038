"""The command `ssl-lens align`."""

from __future__ import annotations

import argparse
from typing import get_args

from ssl_lens.cli.arguments import READING_KEYS, flags, path_argument, text_argument
from ssl_lens.cli.export import say_differences
from ssl_lens.errors import arguments_named
from ssl_lens.representation.pooling_names import Pooling

SHOWN = 5  # signals
KEPT = ("all", "shared")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("target", metavar="TARGET", type=path_argument, help="folder of a run or an export")
    parser.add_argument("out", metavar="OUT", type=path_argument, help="folder to write")
    parser.add_argument(
        "--pairs",
        metavar="DIR",
        type=path_argument,
        required=True,
        help="lenses with two or more renderings each, as `ssl-lens simulate DIR --renderings 2` makes them",
    )
    parser.add_argument(
        "--data", metavar="DIR", type=text_argument, required=True, help="images to use it on, without labels"
    )
    parser.add_argument(
        "--keep",
        choices=KEPT,
        default="all",
        help="directions of the map: all, for images that are not quite as the pairs; shared: those that renderings "
        "share, for images that are (default %(default)s)",
    )
    parser.add_argument("--exclude", metavar="FILE", type=path_argument, help="names of images of --data to leave out")
    parser.add_argument(
        "--column",
        metavar="NAME",
        default="lens_number",
        help="number in the table of --pairs that renderings of a lens share (default %(default)s)",
    )
    parser.add_argument(
        "--pooling", choices=get_args(Pooling), help="what is mapped (default: the export's own, stage_rings of a run)"
    )


@arguments_named(READING_KEYS | flags("pairs", "data", "column", "pooling", "exclude"))
def run(options: argparse.Namespace) -> None:
    """Aligns and exports, and prints what was found."""
    from ssl_lens.representation.align import align

    found = align(
        options.target,
        options.out,
        pairs=options.pairs,
        data=options.data,
        column=options.column,
        pooling=options.pooling,
        keep=options.keep,
        exclude=options.exclude,
    )
    strongest = ", ".join(f"{signal:.3g}" for signal in found.signal[:SHOWN])
    print(
        f"{found.lenses} lenses: {found.shared} of {found.features} directions are shared by their renderings, signal "
        f"to noise {strongest}, ...; {found.kept} are kept"
    )
    say_differences(options.out, found.check)
