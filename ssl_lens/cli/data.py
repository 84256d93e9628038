"""The command `ssl-lens data`: `pack` and `check`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ssl_lens.cli.arguments import IMAGES, add_files, flags, path_argument, text_argument
from ssl_lens.data.folders.layouts import Sizes
from ssl_lens.errors import InputError, arguments_named, renamed

if TYPE_CHECKING:  # imported when a command runs, so that its help comes at once
    from ssl_lens.data.pixels.policy import PixelPolicy

NAMES = flags("layout", "table", "files", "planes", "noise", "mask_value", "max_masked", "sizes", "size") | {
    "path": IMAGES
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two commands to the parser of `data`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    pack = commands.add_parser("pack", help="make one array of a set of images, with labels, numbers and hashes")
    _add_set(pack)
    pack.add_argument("out", metavar="OUT", type=path_argument, help="a new folder, for data.path and --data")
    pack.set_defaults(run_data=_pack)

    check = commands.add_parser(
        "check",
        help="what is in a set, and whether training would take it",
        description="Exit status: 0, training would take the set; 1, it would not, or images for tests are among "
        "those to train on; 2, there is nothing to check.",
    )
    _add_set(check)
    check.add_argument("--split", metavar="FILE", type=path_argument, help="names of the images that are for tests")
    check.add_argument(
        "--against", metavar="DIR", type=path_argument, help="another set, which should share no image with this"
    )
    check.add_argument(
        "--out",
        metavar="FOLDER",
        type=path_argument,
        help="for contact sheet, histograms and JSON; default: checks/NAME",
    )
    check.set_defaults(run_data=_check)


@arguments_named(NAMES)
def run(options: argparse.Namespace) -> int | None:
    """Runs the chosen one of the two; returns the exit status if it is not 0."""
    return options.run_data(options)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar=IMAGES, type=text_argument, help="folder of images, table or pack")
    add_files(parser, "those known to be flux")
    parser.add_argument("--table", metavar="FILE", type=path_argument, help="labels and numbers of the images in DIR")
    parser.add_argument("--mask-value", metavar="X", type=float, help="pixels of this value are filled, as NaN is")
    parser.add_argument(
        "--max-masked", metavar="F", type=float, default=0.1, help="more of a channel: unusable (%(default)s)"
    )
    parser.add_argument("--sizes", choices=get_args(Sizes), default="refuse", help="images of unequal size")
    parser.add_argument("--size", metavar="PX", type=int, help="side to crop or pad to; default: the set's extremes")


def _policy(options: argparse.Namespace) -> PixelPolicy:
    from ssl_lens.data.pixels.policy import PixelPolicy

    size = None if options.size is None else (options.size, options.size)
    return PixelPolicy(
        options.mask_value, options.max_masked, options.sizes, size, options.planes or (), options.noise or ()
    )


def _path(options: argparse.Namespace) -> Path:
    from ssl_lens.data.shards.shard_list import are_shards

    if are_shards(options.path):
        raise InputError(f"{options.path} is a pattern, URL or tar of shards; give a local folder that holds the tars")
    return Path(options.path)


def _pack(options: argparse.Namespace) -> None:
    from ssl_lens.data.images import pack_images

    path = _path(options)
    images = pack_images(
        path,
        options.out,
        policy=_policy(options),
        layout=options.layout,
        table=options.table,
        files=options.files,
    )
    print(f"{options.out}: {len(images)} images, {images.images.nbytes / 1e6:.1f} MB")


def _check(options: argparse.Namespace) -> int:
    from ssl_lens.data.check.check import check_images
    from ssl_lens.data.check.report import lines, write_check
    from ssl_lens.data.splits import read_names

    path = _path(options)
    out = options.out or Path("checks", Path(os.path.abspath(path)).stem)
    if out.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{out} lies in {path}, to whose images it would add; give another folder with --out")
    held_out = frozenset(() if options.split is None else read_names(options.split))
    report = check_images(
        path,
        policy=_policy(options),
        layout=options.layout,
        table=options.table,
        files=options.files,
        held_out=held_out,
        against=options.against,
    )
    unknown = sorted(held_out.difference(report.names, (name for name, _ in report.unusable)))
    if unknown:
        raise InputError(
            f"--split {options.split}: {len(unknown)} of {len(held_out)} names are not in {path}, such as "
            f"{unknown[0]}; give the split file of this set"
        )
    print("\n".join(renamed(line, NAMES) for line in lines(report)))
    for written in write_check(report, out):
        print(written)
    return 0 if report.accepted else 1
