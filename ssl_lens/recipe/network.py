"""The network of a recipe, the method that trains it, and what they can take."""

from __future__ import annotations

from pathlib import Path

import torch

from ssl_lens.backbones import catalog, weights
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.layers.blocks import checkpoint_blocks
from ssl_lens.engine.compilation import compile_encoders, compiler_problem
from ssl_lens.errors import InputError, arguments_named
from ssl_lens.methods.catalog import METHODS
from ssl_lens.methods.method import Method
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.representation.frozen import load_backbone

MODEL_KEYS = {name: f"model.{name}" for name in ("name", *catalog.all_option_names())}
FINER = ("patch_size", "stem_stride", "stages")  # options of networks; lower ones make finer maps
FEW_REGIONS = 9  # of a local crop's last map; below, matching regions means little


def network_to_train(recipe: Recipe, *, resuming: bool = False) -> MapBackbone:
    """The network that the method of a recipe without `auto` trains, with the weights that training begins with.

    Args:
        resuming: whether weights will be loaded from a checkpoint, so that those of `model.weights` are not needed.

    Raises: InputError if the recipe's values do not fit together, or the weights are another network's.
    """
    assert recipe.data.in_channels != "auto", "resolve auto values first"
    torch.manual_seed(recipe.seed)  # backbone first: `untrained_backbone` repeats it
    trunk = backbone(recipe, recipe.data.in_channels)
    if not any(parameter.requires_grad for parameter in trunk.parameters()):
        raise InputError(
            f"model.name={recipe.model.name} has no weights to train; `ssl-lens fit {recipe.model.name} OUT --data "
            "DIR` makes a backbone of it, and model.stem={...} puts what can be trained in front"
        )
    if recipe.model.weights is not None and not resuming:
        load_starting_weights(trunk, recipe.model.weights)
    return trunk


def build_method(recipe: Recipe, trunk: MapBackbone) -> Method:
    """The method of a recipe without `auto`, which trains `trunk`; its random numbers are those after the network's.

    Raises: InputError if a network without blocks is to compute them again in backward.
    """
    method = METHODS[recipe.method.name](trunk, recipe.method)
    if recipe.run.checkpointing and not checkpoint_blocks(method.trained):
        raise InputError(
            f"run.checkpointing=true does nothing for model.name={recipe.model.name}, without blocks of attention; "
            "raise optim.accumulate instead"
        )
    return method


def compiled_where_it_pays(recipe: Recipe, method: Method, device: torch.device) -> list[str]:
    """Compiles the networks of a method that is on its device, if the recipe asks for it; gives a line that says so.

    auto: on a GPU. On a processor most of a step is matrix products, which compiling leaves as they are. Where nothing
    can be compiled, the networks stay as they are, and the line says why.
    """
    wanted = device.type == "cuda" if recipe.run.compile == "auto" else recipe.run.compile
    if not wanted:
        return []
    problem = compiler_problem(device)
    if problem is None:
        compile_encoders(method)
        return ["run.compile: networks are compiled in the first step, once for each size of crops; it takes minutes"]
    return [
        f"run.compile={str(recipe.run.compile).lower()}: nothing can be compiled here ({problem}), networks stay as "
        "they are; install a C++ compiler, for a GPU triton too, or set run.compile=false"
    ]


@arguments_named(MODEL_KEYS)
def backbone(recipe: Recipe, in_channels: int, image_size: int | None = None) -> MapBackbone:
    """The recipe's backbone with fresh weights, its stem included.

    Args:
        image_size: side of the images in pixels, for a network that is built for one; None for that of global crops.

    Raises: InputError if the recipe's model values do not fit together.
    """
    model = recipe.model
    return catalog.build_backbone(
        model.name,
        model.options,
        in_channels=in_channels,
        image_size=image_size or recipe.views.global_size,
        stem=model.stem,
    )


def load_starting_weights(backbone: MapBackbone, source: str) -> None:
    """Loads what `model.weights` names into a backbone: pretrained, the folder of a run or an export, or a file.

    Raises: InputError if there are no such weights, or they are another network's.
    """
    if source == "pretrained":
        weights.load_pretrained(backbone)
    elif Path(source).is_dir():
        weights.load_weights(backbone, load_backbone(source).backbone.state_dict(), source)
    else:
        weights.load_weights(backbone, weights.read_weights(source), source)


@arguments_named(MODEL_KEYS)
def check_sizes(recipe: Recipe, backbone: MapBackbone, height: int, width: int) -> list[str]:
    """Refuses crops that the image or the network cannot give; returns a line for each that is of doubtful use.

    Args:
        height, width: of a prepared image, in pixels.

    Raises: InputError if a crop exceeds the image, the backbone cannot take it, or a region loss would match a
        single region.
    """
    views, notes = recipe.views, []
    policy_keys = {name: f"views.{views.policy}.{name}" for name in type(views.chosen).model_fields}
    sizes = {"views.global_size": (views.global_size,), "views.local_sizes": views.local_sizes}
    for key, size in ((key, size) for key, group in sizes.items() for size in group):
        with arguments_named(policy_keys | {"size": key}):
            views.chosen.check(size)
        if size > min(height, width):
            raise InputError(
                f"{key}={size} exceeds the image, {height}x{width} px after data.center_crop and data.bin; "
                f"set {key} to {min(height, width)} or less"
            )
        rows, columns = backbone.map_size(size, size)
        notes.append(f"{key}={size}: {rows}x{columns} regions on the last map")
        without = recipe.method.without_regions
        if without is None or rows * columns >= FEW_REGIONS:
            continue
        advice = f"{_finer_map(recipe)}raise {key}, or set method.{without}"
        if rows * columns == 1:
            raise InputError(f"{key}={size} leaves a 1x1 last map, on which a region loss means nothing; {advice}")
        notes[-1] += f", few for a region loss; {advice}"
    return notes


def _finer_map(recipe: Recipe) -> str:
    """Which options of the network make its last map finer."""
    options = [f"model.{name}" for name in FINER if name in catalog.option_names(recipe.model.name)]
    return f"lower {' or '.join(options)}, " if options else ""
