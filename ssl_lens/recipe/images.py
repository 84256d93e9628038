"""The images of a recipe, and what fits their pixels to a network."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess, fit_preprocess
from ssl_lens.errors import InputError

if TYPE_CHECKING:
    from ssl_lens.data.images import ImageSet
    from ssl_lens.data.pack.packed_images import Images
    from ssl_lens.data.shards.shard_set import ShardSet
    from ssl_lens.recipe.recipe import Recipe
    from ssl_lens.simulation.section import Simulate

logger = logging.getLogger(__name__)

MOST_TO_FIT = 512 << 20  # bytes of raw images that are read from shards at once


def image_set(recipe: Recipe, *, quarantine: Path | None = None) -> ImageSet | ShardSet:
    """The unlabelled images of a recipe: the folder `data.path` without the names in `data.exclude`, the shards that
    it names, or a simulated set, announced, cached and used again.

    Raises: InputError if the folder or shards cannot be used, or every image is excluded.
    """
    from ssl_lens.data.images import load_images
    from ssl_lens.data.shards.shard_list import are_shards
    from ssl_lens.data.splits import divide, own_division, read_names

    data = recipe.data
    if data.path is not None and are_shards(data.path):
        return _shard_set(recipe)
    if data.path is None:
        logger.info("data.path is not set: simulating lenses; give data.path=DIR for your own images")
    folder = Path(data.path) if data.path else simulated_set(data.simulate)
    in_channels = None if data.in_channels == "auto" else data.in_channels
    images = load_images(
        folder, in_channels=in_channels, quarantine=quarantine, policy=pixel_policy(recipe), layout=data.layout
    )
    if images.held_out is not None:
        logger.info("%d images held out for tests are left out of pretraining", images.held_out.sum())
        images, _ = own_division(images, None)
    if data.exclude is None or data.path is None:  # names of somebody's images, not of simulated ones
        return images
    rest, excluded = divide(images, read_names(Path(data.exclude)))
    logger.info("data.exclude=%s: %d images left out, %d remain", data.exclude, len(excluded), len(rest))
    return rest


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
    )


def _shard_set(recipe: Recipe) -> ShardSet:
    from ssl_lens.data.shards.shard_set import find_shards

    data = recipe.data
    if data.exclude is not None:
        raise InputError(
            f"data.exclude={data.exclude} cannot leave images out of shards, which are streamed; write shards without "
            "them, or put the shards into a folder for data.path, which is packed"
        )
    in_channels = None if data.in_channels == "auto" else data.in_channels
    return find_shards(data.path, policy=pixel_policy(recipe), in_channels=in_channels)


def images_to_fit(images: ImageSet | ShardSet) -> Images:
    """Raw images [N, C, H, W] that stand for the set: all that lie in an array, some of those in shards."""
    from ssl_lens.data.shards.shard_set import ShardSet

    return images.sample(MOST_TO_FIT) if isinstance(images, ShardSet) else images.images


def labelled_set(recipe: Recipe, size: tuple[int, int]) -> ImageSet | None:
    """The labelled images of the online probe (`data.probe`) that are not held out for tests, or None.

    Args:
        size: height and width in pixels of the unlabelled images, which these are cropped or padded to.

    Raises: InputError if the folder has no class folders.
    """
    from ssl_lens.data.images import load_images
    from ssl_lens.data.splits import own_division

    if recipe.data.probe is None:
        return None
    policy = pixel_policy(recipe)
    if policy.sizes != "refuse":
        policy = dataclasses.replace(policy, size=size)
    images = load_images(Path(recipe.data.probe), policy=policy, layout=recipe.data.layout)
    if images.labels is None:
        raise InputError(f"data.probe={recipe.data.probe} has no labels; give a folder with one folder per class")
    if images.held_out is not None:  # who chooses by the probe has seen its images
        images, _ = own_division(images, None)
    return images.labelled()


def pixel_policy(recipe: Recipe) -> PixelPolicy:
    """How the image files of a recipe are read."""
    data = recipe.data
    return PixelPolicy(data.mask_value, data.max_masked, data.sizes, data.size and (data.size, data.size))


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
