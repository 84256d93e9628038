"""A backbone fitted to a set of images: what it takes to use one on the images of another telescope."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ssl_lens.data.folders.layouts import LayoutName
from ssl_lens.data.formats.planes import Names
from ssl_lens.data.pixels.preprocess import fit_preprocess
from ssl_lens.data.pixels.stretch import Kind
from ssl_lens.data.source import ImageSource, open_source
from ssl_lens.errors import arguments_named
from ssl_lens.recipe.images import pixel_policy
from ssl_lens.recipe.network import backbone
from ssl_lens.recipe.recipe import Recipe, recipe_of, replace
from ssl_lens.representation.export import ExportCheck, write_export
from ssl_lens.representation.frozen import FrozenBackbone, adapt, load_backbone
from ssl_lens.representation.pooling_names import Pooling

logger = logging.getLogger(__name__)


def fit(
    target: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    data: str | Path,
    center_crop: int | None = None,
    bin: int | None = None,
    stretch: Kind | None = None,
    pooling: Pooling | None = None,
    exclude: Path | None = None,
    layout: LayoutName = "auto",
    files: str | None = None,
    planes: Names | None = None,
    noise: Names | None = None,
    mask: Names | None = None,
) -> ExportCheck:
    """Exports a backbone with its preprocessing fitted to unlabelled images; its weights stay what they are.

    Of the levels, scatter and sky of the images that a backbone was trained on, none holds for another telescope. A
    network without parameters, such as `lens_wavelets`, needs nothing else to be used.

    Args:
        target: folder of a run or an export; or the name of a network or a recipe, whose weights are then random.
        out: folder for the export, as of `export`.
        overrides: `key=value` changes to a network or a recipe.
        data: images, as for pretraining; those that the set holds out for tests are left out.
        center_crop, bin, stretch: other ones than the target's, such as for another pixel scale.
        pooling: what the export gives as `features`; None for what `load_backbone` would.
        exclude: file of the names of images to leave out.
        layout, files, planes, noise, mask: as for `evaluate`.

    Raises: InputError if something given cannot be used; otherwise as `export`.
    """
    recipe = recipe_of(str(target), overrides)
    if recipe is None:
        trained = load_backbone(target, pooling=pooling)
        policy, channels = trained.preprocess.policy, trained.preprocess.in_channels
    else:
        given = {"data.center_crop": center_crop, "data.bin": bin, "data.stretch": stretch}
        recipe = replace(recipe, {key: value for key, value in given.items() if value is not None})
        policy, channels = pixel_policy(recipe), None
    with arguments_named({"path": "data"}):
        images = open_source(
            str(data),
            in_channels=channels,
            policy=policy.with_planes(planes, noise, mask),
            layout=layout,
            files=files,
            exclude=exclude,
        )
    if recipe is None:
        fitted = trained.fitted(
            images.sample(), center_crop=center_crop, bin=bin, stretch=stretch, policy=images.policy
        )
    else:
        fitted = _untrained(recipe, images, pooling or recipe.features.pooling)
    height, width = images.shape[1:]
    fitted.check_size(height, width)
    return write_export(fitted, Path(out), (height, width))


def _untrained(recipe: Recipe, images: ImageSource, pooling: Pooling) -> FrozenBackbone:
    """The network of a recipe with the weights that its training would begin with."""
    crop, bin, stretch, bands = recipe.data.center_crop, recipe.data.bin, recipe.data.stretch, recipe.data.bands
    preprocess = fit_preprocess(
        images.sample(), center_crop=crop, bin=bin, stretch=stretch, bands=bands, policy=images.policy
    )
    height, width = preprocess.output_size(images.shape[1], images.shape[2])
    torch.manual_seed(recipe.seed)
    network = backbone(recipe, images.shape[0], height if height == width else None)
    if any(parameter.requires_grad for parameter in network.parameters()):
        logger.warning("%s is not trained: its weights are random", recipe.model.name)
    fitted = preprocess.fitted(*network.size_rule)
    adapt(network, fitted, images.sample())
    return FrozenBackbone(fitted, network, pooling)
