"""The command `ssl-lens simulate`."""

from __future__ import annotations

import argparse

from ssl_lens.cli.arguments import flags, path_argument
from ssl_lens.errors import InputError, arguments_named

MODELS = ("model_i", "model_ii", "model_iii")  # as `ssl_lens.simulation.parameters.Model`, without its imports
REDRAWN = ("source", "exposure", "lens_light", "psf")  # as `ssl_lens.simulation.lens.REDRAWN`
NAMES = flags("image_size", "pixel_scale_arcsec", "galaxies", "seed", "workers", "renderings", "redraw")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("out", metavar="OUT", type=path_argument, help="a new folder, or one to continue")
    parser.add_argument("--model", choices=MODELS, default="model_i", help="which of DeepLense's telescopes")
    parser.add_argument("--count", metavar="N", type=int, default=3000, help="lenses of all three classes together")
    parser.add_argument("--image-size", metavar="PX", type=int, help="side; default: the model's")
    parser.add_argument("--pixel-scale-arcsec", metavar="ARCSEC", type=float, help="default: the model's")
    parser.add_argument(
        "--set",
        metavar="KEY=LOW,HIGH",
        nargs="+",
        action="extend",
        default=[],
        help="ranges of parameters, such as shear=0,0.1 (docs/data.md has the table)",
    )
    parser.add_argument(
        "--galaxies", metavar="DIR", type=path_argument, help="images of real galaxies to be the sources"
    )
    parser.add_argument(
        "--as-deeplense",
        action="store_true",
        help="its noise, orientation, distances, subhalo_scatter, subhalo_slope; one alone: --set noise=deeplense",
    )
    parser.add_argument(
        "--randomised",
        action="store_true",
        help="wide ranges of lenses, sources and lens light, to train for images from elsewhere (docs/data.md)",
    )
    parser.add_argument(
        "--renderings", metavar="K", type=int, default=1, help="images of each lens: the same mass, always other noise"
    )
    parser.add_argument(
        "--redraw",
        choices=REDRAWN,
        nargs="*",
        action="extend",
        help="what else differs between the renderings of a lens (default: all; no word: noise alone)",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", metavar="N", type=int, help="processes; they change no bit of the images")


@arguments_named(NAMES)
def run(options: argparse.Namespace) -> None:
    """Simulates a set, and prints its folder."""
    from ssl_lens.simulation.lens import CLASSES
    from ssl_lens.simulation.parameters import parse_parameters
    from ssl_lens.simulation.sets import simulate_lenses

    per_class, rest = divmod(options.count, len(CLASSES))
    if rest or per_class < 1:
        raise InputError(
            f"--count {options.count} is not a multiple of the {len(CLASSES)} classes; "
            f"set it to {len(CLASSES) * max(per_class + bool(rest), 1)}"
        )
    folder = simulate_lenses(
        options.out,
        count_per_class=per_class,
        model=options.model,
        image_size=options.image_size,
        pixel_scale_arcsec=options.pixel_scale_arcsec,
        parameters=parse_parameters(options.set, as_deeplense=options.as_deeplense, randomised=options.randomised),
        galaxies=options.galaxies,
        seed=options.seed,
        workers=options.workers,
        renderings=options.renderings,
        redraw=options.redraw,
    )
    print(folder)
