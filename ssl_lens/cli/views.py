"""The command `ssl-lens views`: a picture of the views, to judge whether a lens is still a lens."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens.cli.arguments import add_recipe_arguments, path_argument
from ssl_lens.errors import arguments_named

SHOWN_IMAGES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--out", metavar="PNG", type=path_argument, default=Path("views.png"), help="default: %(default)s"
    )


def run(options: argparse.Namespace) -> None:
    """Draws the views of some images, spread over the set."""
    import numpy as np
    import torch

    from ssl_lens.data.pixels.preprocess import pixel_range
    from ssl_lens.recipe import images as recipe_images
    from ssl_lens.recipe.recipe import load_recipe
    from ssl_lens.views.picture import save_views

    recipe = load_recipe(options.recipe, options.overrides)
    source = recipe_images.image_source(recipe)
    images = source.sample()
    preprocess = recipe_images.preprocess(recipe, images, source.policy)
    shown = np.linspace(0, len(images) - 1, min(SHOWN_IMAGES, len(images))).astype(np.int64)
    prepared = preprocess(torch.from_numpy(images[shown]))
    multicrop = recipe.views.multicrop(pixel_range(preprocess, images))
    with arguments_named({name: f"views.{name}" for name in type(recipe.views).model_fields}):
        views = multicrop(prepared, torch.from_numpy(shown), seed=recipe.seed, epoch=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_views(views, options.out, prepared)
    print(options.out)
