"""Where supervised training begins: fresh weights of a network or a recipe, or the backbone of a run or an export."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import Backbone
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.recipe import compose
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.recipe import Recipe, load_recipe, recipe_of_network
from ssl_lens.representation.frozen import load_backbone, load_preprocess, untrained_backbone

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """The preprocessing of the images, and for every method the network with which a seed's training begins."""

    preprocess: Preprocess
    networks: dict[str, Callable[[int], Backbone]]


def recipe_of(model: str, overrides: Sequence[str]) -> Recipe | None:
    """The recipe that a network's name or a recipe's file stands for, changed by overrides; None for a run or export.

    A name comes before a folder of that name, which is to be written `./name`.

    Raises: InputError if `model` is nothing of all this, or there are overrides of a run or an export.
    """
    if model.endswith((".yaml", ".yml")):
        return load_recipe(model, overrides)
    if model in catalog.names():
        return recipe_of_network(model, overrides)
    if "/" not in model and not Path(model).exists():
        recipe_of_network(model)  # says which names there are
    if overrides:
        raise InputError(
            f"{overrides[0]} cannot change {model}, whose network and preprocessing are settled; "
            "give a recipe or a network's name to train another from scratch"
        )
    return None


def pixel_policy(model: str, recipe: Recipe | None) -> PixelPolicy:
    """How image files are to be read: as a recipe says, or without one as for the run or export `model`."""
    return load_preprocess(model).policy if recipe is None else recipe_images.pixel_policy(recipe)


def from_recipe(recipe: Recipe, name: str, images: ImageSet) -> Start:
    """Fresh weights for every seed; the preprocessing is fitted to the training images."""
    preprocess = recipe_images.preprocess(recipe, images.images, images.policy)
    height, width = preprocess.output_size(*images.images.shape[2:])

    def fresh(seed: int) -> Backbone:
        torch.manual_seed(seed)
        return compose.backbone(recipe, images.images.shape[1], image_size=height if height == width else None)

    return Start(preprocess, {f"{name} from scratch": fresh})


def from_backbone(folder: Path, *, scratch: bool) -> Start:
    """The backbone of a run or an export; with `scratch` also the same network with fresh weights.

    Says so if the backbone's symmetry will be lost: an export has plain convolutions for steerable ones.
    """
    frozen = load_backbone(folder)
    if (config := frozen.backbone.config()) != catalog.unfolded(config):
        logger.warning(
            "%s is an export with folded steerable filters, which need not stay steerable in training; "
            "give its run to keep the symmetry",
            folder,
        )
    networks: dict[str, Callable[[int], Backbone]] = {
        f"{folder.resolve().name} fine-tuned": lambda seed: frozen.backbone
    }
    if scratch:
        networks["from scratch"] = lambda seed: untrained_backbone(folder, seed=seed)
    return Start(frozen.preprocess, networks)
