"""The command `ssl-lens fit`."""

from __future__ import annotations

import argparse
from typing import get_args

from ssl_lens.cli.arguments import READING_FLAGS, READING_KEYS, add_files, flags, path_argument, positive, text_argument
from ssl_lens.cli.export import say_differences
from ssl_lens.errors import arguments_named
from ssl_lens.representation.pooling_names import Pooling

STRETCHES = ("none", "asinh", "log", "percentile", "zscale")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        type=text_argument,
        help="folder of a run or an export; a network without weights, such as lens_wavelets, or any other by name",
    )
    parser.add_argument("out", metavar="OUT", type=path_argument, help="folder to write")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="changes to a network or a recipe, such as model.stages=2"
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=text_argument,
        required=True,
        help="images to fit to, without labels: a folder, a table, a pack or shards",
    )
    add_files(
        parser, planes="those of the target; none: those known to be flux", noise="that of the target; none: none"
    )
    parser.add_argument("--exclude", metavar="FILE", type=path_argument, help="names of images to leave out")
    parser.add_argument(
        "--center-crop", metavar="PX", type=positive, help="side of the central square (default: its own)"
    )
    parser.add_argument("--bin", metavar="N", type=positive, help="average blocks of N x N pixels (default: its own)")
    parser.add_argument("--stretch", choices=STRETCHES, help="of the pixels (default: its own)")
    parser.add_argument("--pooling", choices=get_args(Pooling), help="what `features` are (default: stage_rings)")


@arguments_named(
    READING_KEYS | READING_FLAGS | flags("data", "exclude", "layout", "center_crop", "bin", "stretch", "pooling")
)
def run(options: argparse.Namespace) -> None:
    """Fits and exports, and prints how much the features differ."""
    from ssl_lens.recipe.fit import fit

    check = fit(
        options.target,
        options.out,
        options.overrides,
        data=options.data,
        center_crop=options.center_crop,
        bin=options.bin,
        stretch=options.stretch,
        pooling=options.pooling,
        exclude=options.exclude,
        layout=options.layout,
        files=options.files,
        planes=options.planes,
        noise=options.noise,
        mask=options.mask,
    )
    say_differences(options.out, check)
