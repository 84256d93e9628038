"""The command `ssl-lens predict`."""

from __future__ import annotations

import argparse

from ssl_lens.cli.arguments import IMAGES_NAMES, add_batch_size, add_images, flags, path_argument
from ssl_lens.errors import arguments_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "target", metavar="TARGET", type=path_argument, help="folder of a network or a probe written with --save"
    )
    add_images(parser)
    parser.add_argument(
        "out",
        metavar="SCORES.csv",
        type=path_argument,
        help="a row per image: name, class and the probability of each class, or name and the numbers measured",
    )
    add_batch_size(parser)


@arguments_named(IMAGES_NAMES | flags("save"))
def run(options: argparse.Namespace) -> None:
    """Writes what the network says of all images."""
    from ssl_lens.representation.prediction import predict

    result = predict(
        options.target,
        options.data,
        options.out,
        batch_size=options.batch_size,
        layout=options.layout,
        table=options.table,
        files=options.files,
        planes=options.planes,
        noise=options.noise,
        mask=options.mask,
    )
    print(f"{result.path}: {len(result.names)} images")
