"""The images of a recipe, and what fits their pixels to a network."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess, fit_preprocess
from ssl_lens.data.renderings import LENS
from ssl_lens.data.section import Data
from ssl_lens.errors import InputError, arguments_named
from ssl_lens.simulation.parameters import Parameters
from ssl_lens.simulation.section import Simulate

if TYPE_CHECKING:
    from ssl_lens.data.images import ImageSet
    from ssl_lens.data.pack.packed_images import Images
    from ssl_lens.data.source import ImageSource
    from ssl_lens.recipe.recipe import Recipe

logger = logging.getLogger(__name__)

DATA_KEYS = {name: f"data.{name}" for name in Data.model_fields}
SIMULATE_KEYS = {name: f"simulate.{name}" for name in Simulate.model_fields} | {
    name: f"simulate.set.{name}" for name in Parameters.model_fields
}


@arguments_named(DATA_KEYS | {"column": "data.renderings"})
def image_source(recipe: Recipe, *, quarantine: Path | None = None) -> ImageSource:
    """The unlabelled images of a recipe: what `data.path` names, without the names in `data.exclude`; or a simulated
    set, announced, cached and used again.

    Raises: InputError if they cannot be used, or every image is excluded.
    """
    from ssl_lens.data.source import open_source

    data = recipe.data
    refuse_folder_of_images(recipe)
    if data.path is None:
        logger.info("data.path is not set: simulating lenses; give data.path=DIR for your own images")
    return open_source(
        data.path or str(simulated_set(recipe.simulate)),
        in_channels=None if data.in_channels == "auto" else data.in_channels,
        policy=pixel_policy(recipe),
        layout=data.layout,
        files=data.files if data.path else None,
        exclude=Path(data.exclude) if data.exclude and data.path else None,  # names of somebody's images, not of ours
        renderings=data.renderings if data.path else LENS if recipe.simulate.renderings > 1 else None,
        workers=data.workers,
        shuffle_buffer=data.shuffle_buffer,
        quarantine=quarantine,
    )


def refuse_folder_of_images(recipe: Recipe) -> None:
    """Raises InputError if the run would lie where the images do."""
    path, folder = recipe.data.path, recipe.run.folder
    if path is not None and os.path.realpath(path) == os.path.realpath(folder):
        raise InputError(f"run.folder={folder} is the folder of the images; give another, such as runs/NAME")


def images_folder(recipe: Recipe) -> Path | None:
    """The folder that the names of a recipe's images are relative to, if they are on this machine."""
    path = Path(recipe.data.path or "")
    folder = path if path.is_dir() else path.parent  # of a table, or of shards
    return folder if recipe.data.path and folder.is_dir() else None


@arguments_named(SIMULATE_KEYS)
def simulated_set(simulate: Simulate) -> Path:
    """The folder of the simulated set of a recipe, in the cache.

    Raises: InputError if its values do not go together or it cannot be written.
    """
    from ssl_lens.simulation.sets import default_set

    return default_set(
        count_per_class=simulate.count_per_class,
        model=simulate.model,
        image_size=simulate.image_size,
        pixel_scale_arcsec=simulate.pixel_scale_arcsec,
        parameters=simulate.set,
        seed=simulate.seed,
        renderings=simulate.renderings,
        redraw=simulate.redraw,
    )


@arguments_named(DATA_KEYS | {"path": "data.probe"})
def labelled_set(recipe: Recipe, shape: tuple[int, ...]) -> ImageSet | None:
    """The labelled images of the online probe (`data.probe`), or None.

    Images that evaluators judge by are not among them: those that the set holds out for tests and those whose names
    `data.exclude` has; where it has none of them either, the fifth that evaluators would choose.

    Args:
        shape: [C, H, W] of the unlabelled images; these have as many channels, and are cropped or padded to the size.

    Raises: InputError if the folder has no class folders, or images of other channels.
    """
    from ssl_lens.data.images import load_images
    from ssl_lens.data.pack.pack import is_pack
    from ssl_lens.data.splits import own_division, read_names, usual_division

    if recipe.data.probe is None:
        return None
    policy = pixel_policy(recipe)
    if policy.sizes != "refuse":
        policy = dataclasses.replace(policy, size=(shape[1], shape[2]))
    probe, files = Path(recipe.data.probe), recipe.data.files
    files = files if probe.is_dir() and not is_pack(probe) else None  # what it is of: a folder like that of `data.path`
    images = load_images(probe, in_channels=shape[0], policy=policy, layout=recipe.data.layout, files=files)
    if images.labels is None:
        raise InputError(f"data.probe={recipe.data.probe} has no labels; give a folder with one folder per class")
    division = own_division(images, None)  # who chooses by the probe has seen its images
    images = images if division is None else division[0]
    excluded = set() if recipe.data.exclude is None else set(read_names(Path(recipe.data.exclude)))
    kept = [i for i, name in enumerate(images.names) if name not in excluded]
    labelled = images.subset(np.array(kept, dtype=np.int64)).labelled()
    if division is not None or len(kept) < len(images):
        return labelled
    assert labelled.labels is not None, "it is labelled"
    return labelled.subset(usual_division(labelled.labels)[0])


@arguments_named(DATA_KEYS)
def pixel_policy(recipe: Recipe) -> PixelPolicy:
    """How the image files of a recipe are read."""
    data = recipe.data
    size = None if data.size is None else (data.size, data.size)
    return PixelPolicy(data.mask_value, data.max_masked, data.sizes, size, data.planes, data.noise, data.mask)


@arguments_named(DATA_KEYS)
def preprocess(recipe: Recipe, images: Images, policy: PixelPolicy) -> Preprocess:
    """The recipe's preprocessing, fitted to raw images [N, C, H, W] that were read by `policy`."""
    data = recipe.data
    return fit_preprocess(
        images,
        center_crop=data.center_crop,
        bin=data.bin,
        stretch=data.stretch,
        bands=data.bands,
        policy=policy,
    )
