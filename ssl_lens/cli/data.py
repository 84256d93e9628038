"""The command `ssl-lens data`: `pack` and `check`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ssl_lens.cli.arguments import IMAGES, add_files, add_rgb, flags, path_argument, text_argument
from ssl_lens.data.folders.layouts import LayoutName, Sizes
from ssl_lens.errors import InputError, arguments_named, renamed

if TYPE_CHECKING:  # imported when a command runs, so that its help comes at once
    from ssl_lens.data.check.check import Begun
    from ssl_lens.data.pixels.policy import PixelPolicy

NAMES = flags(
    "layout", "table", "files", "planes", "noise", "mask", "mask_value", "max_masked", "sizes", "size", "rgb"
) | {"path": IMAGES}

DECIDED = (
    "mask_value",
    "max_masked",
    "sizes",
    "size",
    "files",
    "planes",
    "noise",
    "mask",
)  # by a recipe, if not by a flag


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
    check.add_argument(
        "--recipe",
        metavar=("RECIPE", "key=value"),
        nargs="+",
        help="judge by this recipe as well: its network, crops, batch and probe; it also says how images are read",
    )
    add_rgb(check)
    check.set_defaults(run_data=_check)


@arguments_named(NAMES)
def run(options: argparse.Namespace) -> int | None:
    """Runs the chosen one of the two; returns the exit status if it is not 0."""
    return options.run_data(options)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar=IMAGES, type=text_argument, help="folder of images, table or pack")
    add_files(parser, planes="those known to be flux", noise="none")
    parser.set_defaults(layout=None)  # a recipe may say it
    parser.add_argument("--table", metavar="FILE", type=path_argument, help="labels and numbers of the images in DIR")
    parser.add_argument("--mask-value", metavar="X", type=float, help="pixels of this value are filled, as NaN is")
    parser.add_argument("--max-masked", metavar="F", type=float, help="more of a channel: unusable (default 0.1)")
    parser.add_argument("--sizes", choices=get_args(Sizes), help="images of unequal size")
    parser.add_argument("--size", metavar="PX", type=int, help="side to crop or pad to; default: the set's extremes")


def _policy(options: argparse.Namespace) -> PixelPolicy:
    from ssl_lens.data.pixels.policy import PixelPolicy

    size = None if options.size is None else (options.size, options.size)
    max_masked = PixelPolicy.max_masked if options.max_masked is None else options.max_masked
    sizes, names = options.sizes or PixelPolicy.sizes, (options.planes, options.noise, options.mask)
    return PixelPolicy(options.mask_value, max_masked, sizes, size, *(given or () for given in names))


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
        layout=options.layout or "auto",
        table=options.table,
        files=options.files,
    )
    print(f"{options.out}: {len(images)} images, {images.images.nbytes / 1e6:.1f} MB")


def _check(options: argparse.Namespace) -> int:
    from ssl_lens.data.check.check import check_images
    from ssl_lens.data.check.report import lines, write_check

    path = _path(options)
    out = options.out or Path("checks", Path(os.path.abspath(path)).stem)
    if out.resolve().is_relative_to(path.resolve()):
        raise InputError(f"{out} lies in {path}, to whose images it would add; give another folder with --out")
    layout: LayoutName = options.layout or "auto"
    policy, layout, begin = _of_recipe(path, options) if options.recipe else (_policy(options), layout, None)
    report = check_images(
        path,
        policy=policy,
        layout=layout,
        table=options.table,
        files=options.files,
        exclude=options.split,
        against=options.against,
        begin=begin,
    )
    names = NAMES | {"exclude": "--split"}
    print("\n".join(renamed(line, names) for line in lines(report)))
    for written in write_check(report, out, rgb=options.rgb):
        print(written)
    return 0 if report.accepted else 1


def _of_recipe(path: Path, options: argparse.Namespace) -> tuple[PixelPolicy, LayoutName, Callable[[], Begun]]:
    """How a recipe reads these images, changed by the flags that are given, and what begins its run."""
    from ssl_lens.data.check.check import Begun
    from ssl_lens.recipe.images import pixel_policy
    from ssl_lens.recipe.recipe import load_recipe, replace
    from ssl_lens.recipe.start import open_images, start

    given = {name: getattr(options, name) for name in (*DECIDED, "layout")}
    given["exclude"] = None if options.split is None else os.path.abspath(options.split)
    values = {f"data.{name}": value for name, value in given.items() if value is not None}
    name, *overrides = options.recipe
    recipe = replace(load_recipe(name, overrides), {**values, "data.path": os.path.abspath(path)})
    options.files = recipe.data.files
    if recipe.data.exclude is not None:
        options.split = Path(recipe.data.exclude)

    def begin() -> Begun:
        opened = open_images(recipe)
        return Begun(opened.images, start(recipe, opened).choices)

    return pixel_policy(recipe), recipe.data.layout, begin
