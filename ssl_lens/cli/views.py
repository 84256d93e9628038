"""The command `ssl-lens views`: a picture of the views, to judge whether a lens is still a lens."""

from __future__ import annotations

import argparse
from pathlib import Path

from ssl_lens.cli.arguments import add_recipe_arguments, add_rgb, flags, path_argument
from ssl_lens.errors import InputError, arguments_named

SHOWN_IMAGES = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    add_recipe_arguments(parser)
    add_rgb(parser)
    parser.add_argument(
        "--out", metavar="PNG", type=path_argument, default=Path("views.png"), help="default: %(default)s"
    )


def run(options: argparse.Namespace) -> None:
    """Draws the views of some images, spread over the set."""
    import numpy as np
    import torch

    from ssl_lens.data.formats.reader import is_picture
    from ssl_lens.recipe import images as recipe_images
    from ssl_lens.recipe.recipe import load_recipe
    from ssl_lens.recipe.start import crops_that_fit, views_of
    from ssl_lens.views.picture import save_views

    recipe = load_recipe(options.recipe, options.overrides)
    folder = recipe_images.images_folder(recipe)
    if (
        folder is not None
        and folder == Path(recipe.data.path or "")
        and options.out.resolve().is_relative_to(folder.resolve())
    ):
        raise InputError(f"{options.out} lies in {folder}, to whose images it would add; give another file with --out")
    source = recipe_images.image_source(recipe)
    recipe, smaller = crops_that_fit(recipe, *source.shape)
    print("\n".join(smaller), end="\n" if smaller else "")
    images = source.sample()
    preprocess, multicrop = views_of(recipe, recipe_images.preprocess(recipe, images, source.policy), source, images)
    k = source.renderings
    count = len(images) // k
    shown = np.linspace(0, count - 1, min(SHOWN_IMAGES, count)).astype(np.int64)
    linear = preprocess.linear(torch.from_numpy(images[(shown[:, None] * k + np.arange(k)).ravel()]))
    renderings = linear.unflatten(0, (-1, k)) if k > 1 else linear
    with arguments_named({name: f"views.{name}" for name in type(recipe.views).model_fields}):
        views = multicrop(renderings, torch.from_numpy(shown), seed=recipe.seed, epoch=0)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pictures = [is_picture(source.names[i], folder) for i in shown]
    with arguments_named(flags("rgb")):
        first = preprocess.stretched(linear[::k])
        save_views(views, options.out, multicrop.within(first), pictures=pictures, rgb=options.rgb)
    print(options.out)
