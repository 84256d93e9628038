"""The command `ssl-lens embed`."""

from __future__ import annotations

import argparse
from typing import get_args

from ssl_lens.cli.arguments import IMAGES_NAMES, add_batch_size, add_images, flags, path_argument
from ssl_lens.errors import arguments_named
from ssl_lens.representation.pooling_names import Pooling


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="folder of a run or of what `ssl-lens export` wrote"
    )
    add_images(parser)
    parser.add_argument(
        "out",
        metavar="OUT",
        type=path_argument,
        help="NAME.parquet, a row per image: name, label, its numbers, vector; or NAME.npy, the vectors, with all else "
        "in NAME.csv",
    )
    parser.add_argument(
        "--which",
        choices=("features", "view"),
        default="features",
        help="what is measured, or the backbone's own summary (default %(default)s)",
    )
    parser.add_argument(
        "--pooling", choices=get_args(Pooling), help="what the features are; default: what the export says, stage_rings"
    )
    add_batch_size(parser)


@arguments_named(IMAGES_NAMES | flags("which", "pooling"))
def run(options: argparse.Namespace) -> None:
    """Writes the features of all images; what was stopped goes on."""
    from ssl_lens.representation.embedding import embed

    result = embed(
        options.target,
        options.data,
        options.out,
        which=options.which,
        pooling=options.pooling,
        batch_size=options.batch_size,
        layout=options.layout,
        table=options.table,
        files=options.files,
        planes=options.planes,
        noise=options.noise,
        mask=options.mask,
    )
    print(f"{result.path}: {result.images} images, vectors of {result.dimension} numbers")
