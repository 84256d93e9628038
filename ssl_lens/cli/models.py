"""The command `ssl-lens models`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="networks, as in model.name (default: all)")


def run(options: argparse.Namespace) -> None:
    """Prints a line of a table as soon as a network is measured."""
    from typing import get_args

    from ssl_lens.backbones.section import NetworkName
    from ssl_lens.representation.network_table import table

    for line in table(options.names or get_args(NetworkName)):
        print(line, flush=True)
