"""The command `ssl-lens`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from ssl_lens.cli import data, embed, export, predict
from ssl_lens.cli.console import show_progress
from ssl_lens.errors import InputError, one_line_errors
from ssl_lens.simulation.parameters import Model, Parameters, parse_parameters

SHOWN_IMAGES = 6
MODULES = (
    ("embed", embed, "write the features of a folder of images to a table"),
    ("predict", predict, "write the classes of a folder of images, with scores, to a table"),
    ("export", export, "turn a run into a backbone that loads with torch and timm alone"),
)


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int | None:
    """Runs one of the subcommands; returns the exit status if it is not 0."""
    options = _parser().parse_args(arguments)
    show_progress()
    return options.run_command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ssl-lens", description="Beside pretrain.py and the scripts in eval/.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, module, help_line in MODULES:
        command = commands.add_parser(name, help=help_line)
        module.add_arguments(command)
        command.set_defaults(run_command=module.run)

    models = commands.add_parser("models", help="measure the networks there are to choose from")
    models.add_argument("names", metavar="NAME", nargs="*", help="default: all")
    models.set_defaults(run_command=_models)

    views = commands.add_parser("views", help="draw the views of a recipe, to judge whether a lens is still a lens")
    views.add_argument("recipe", metavar="RECIPE", type=Path)
    views.add_argument("overrides", metavar="key=value", nargs="*")
    views.add_argument("--out", metavar="PNG", type=Path, required=True)
    views.set_defaults(run_command=_views)

    data_parser = commands.add_parser("data", help="pack and check sets of images")
    data.add_arguments(data_parser)
    data_parser.set_defaults(run_command=data.run)

    simulate = commands.add_parser("simulate", help="simulate lenses without, with cold and with axion dark matter")
    simulate.add_argument("out", metavar="OUT", type=Path)
    simulate.add_argument("--model", choices=get_args(Model), default="model_i", help="which of DeepLense's telescopes")
    simulate.add_argument("--count", metavar="N", type=int, default=3000, help="images of all three classes together")
    simulate.add_argument("--image-size", metavar="PX", type=int, help="side; default: the model's")
    simulate.add_argument("--pixel-scale-arcsec", metavar="ARCSEC", type=float, help="default: the model's")
    simulate.add_argument(
        "--set",
        metavar="KEY=LOW,HIGH",
        nargs="+",
        default=[],
        help=f"ranges of parameters, such as shear=0,0.1; there are {', '.join(Parameters.model_fields)}",
    )
    simulate.add_argument("--galaxies", metavar="DIR", type=Path, help="images of real galaxies to be the sources")
    simulate.add_argument(
        "--as-deeplense",
        action="store_true",
        help="its noise, orientation, distances, subhalo_scatter, subhalo_slope; one alone: --set noise=deeplense",
    )
    simulate.add_argument("--seed", type=int, default=1)
    simulate.add_argument("--workers", metavar="N", type=int, help="processes; they change no bit of the images")
    simulate.set_defaults(run_command=_simulate)
    return parser


def _models(options: argparse.Namespace) -> None:
    from ssl_lens.backbones.section import NetworkName
    from ssl_lens.representation.network_table import table

    for line in table(options.names or get_args(NetworkName)):
        print(line, flush=True)


def _views(options: argparse.Namespace) -> None:
    from ssl_lens.data.pixels.preprocess import pixel_range
    from ssl_lens.recipe import compose
    from ssl_lens.recipe import images as recipe_images
    from ssl_lens.recipe.recipe import load_recipe
    from ssl_lens.views.picture import save_views

    recipe = load_recipe(options.recipe, options.overrides)
    source = recipe_images.image_source(recipe)
    images = source.sample()
    preprocess = recipe_images.preprocess(recipe, images, source.policy)
    shown = np.linspace(0, len(images) - 1, min(SHOWN_IMAGES, len(images))).astype(np.int64)
    prepared = preprocess(torch.from_numpy(images[shown]))
    multicrop = compose.multicrop(recipe, pixel_range(preprocess, images))
    views = multicrop(prepared, torch.from_numpy(shown), seed=recipe.seed, epoch=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_views(views, options.out, prepared)
    print(options.out)


def _simulate(options: argparse.Namespace) -> None:
    from ssl_lens.simulation.sets import CLASSES, simulate_lenses

    per_class, rest = divmod(options.count, len(CLASSES))
    if rest or per_class < 1:
        raise InputError(
            f"--count {options.count} is no multiple of the {len(CLASSES)} classes; "
            f"set it to {len(CLASSES) * max(per_class + bool(rest), 1)}"
        )
    folder = simulate_lenses(
        options.out,
        count_per_class=per_class,
        model=options.model,
        image_size=options.image_size,
        pixel_scale_arcsec=options.pixel_scale_arcsec,
        parameters=parse_parameters(options.set, as_deeplense=options.as_deeplense),
        galaxies=options.galaxies,
        seed=options.seed,
        workers=options.workers,
    )
    print(folder)


if __name__ == "__main__":
    sys.exit(main())
