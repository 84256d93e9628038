"""Where a name in a recipe becomes an object; networks are in `catalog`."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lens.backbones import catalog, weights
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss
from ssl_lens.methods.criterion import Criterion
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network
from ssl_lens.representation.export import load_backbone
from ssl_lens.schedules import Schedules
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Effect, Photometry

if TYPE_CHECKING:  # an exported backbone is rebuilt here with torch and timm alone
    from ssl_lens.recipe.recipe import Recipe

logger = logging.getLogger(__name__)

FEW_REGIONS = 9  # of a local crop's last map; below, matching regions means little


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


def network(recipe: Recipe) -> Network:
    """Backbone and heads with the weights that training begins with, for a recipe whose `auto` values are resolved."""
    trunk = backbone(recipe, recipe.data.in_channels)
    if recipe.model.weights is not None:
        load_starting_weights(trunk, recipe.model.weights)
    region_head = _head(recipe, trunk.embed_dim) if recipe.loss.region_weight > 0 else None
    return Network(trunk, _head(recipe, trunk.embed_dim), region_head)


def _head(recipe: Recipe, embed_dim: int) -> ProjectionHead:
    model = recipe.model
    return ProjectionHead(
        embed_dim,
        model.out_dim,
        hidden_dim=model.head_hidden_dim,
        bottleneck_dim=model.head_bottleneck_dim,
        norm_last_layer=model.norm_last_layer,
        batch_norm=model.head_batch_norm,
    )


def criterion(recipe: Recipe) -> Criterion:
    """View loss, and region loss where its weight is above 0."""
    loss = recipe.loss
    region = RegionLoss(_centering(recipe), loss.student_temp) if loss.region_weight > 0 else None
    return Criterion(ViewLoss(_centering(recipe), loss.student_temp), region, loss.view_weight, loss.region_weight)


def _centering(recipe: Recipe) -> Centering | SinkhornKnopp:
    match recipe.loss.centering:
        case "center":
            return Centering(recipe.model.out_dim, recipe.loss.center_momentum)
        case "sinkhorn":
            return SinkhornKnopp()


def multicrop(recipe: Recipe, pixel_range: tuple[float, float]) -> MultiCrop:
    """The views of a recipe; `pixel_range` of the prepared images is black and white to the imagenet policy."""
    views = recipe.views
    match views.policy:
        case "lens_safe":
            safe = views.lens_safe
            geometry = LensSafe(safe.max_shift_px)
            photometry = Photometry(
                flux_scale=Effect(*safe.flux_scale, safe.probability),
                psf_sigma_px=Effect(*safe.psf_sigma_px, safe.probability),
                sky_offset=Effect(*safe.sky_offset, safe.probability),
                noise_std=Effect(*safe.noise_std, safe.probability),
            )
        case "imagenet":
            geometry = ImageNetCrops(views.imagenet.global_scale, views.imagenet.local_scale)
            photometry = ColourJitter(black=pixel_range[:1], white=pixel_range[1:])
    return MultiCrop(
        geometry,
        photometry,
        global_size=views.global_size,
        local_sizes=views.local_sizes,
        local_counts=views.local_counts,
        interpolation=views.interpolation,
    )


def schedules(recipe: Recipe, steps_per_epoch: int) -> Schedules:
    """The schedules of a recipe whose `auto` values are resolved."""
    loss, optim = recipe.loss, recipe.optim
    return Schedules(
        epochs=optim.epochs,
        steps_per_epoch=steps_per_epoch,
        lr=optim.lr,
        final_lr=optim.min_lr,
        lr_warmup_epochs=optim.warmup_epochs,
        weight_decay=optim.weight_decay,
        final_weight_decay=optim.weight_decay_end,
        ema_momentum=optim.ema_momentum,
        final_ema_momentum=1.0,
        teacher_temp=loss.teacher_temp,
        warmup_teacher_temp=loss.warmup_teacher_temp,
        teacher_temp_warmup_epochs=loss.warmup_teacher_temp_epochs,
        freeze_last_layer_epochs=optim.freeze_last_layer_epochs,
    )


def check_sizes(recipe: Recipe, backbone: MapBackbone, height: int, width: int) -> list[str]:
    """Refuses crops that the image or the network cannot give; returns a line for each that is of doubtful use.

    Args:
        height, width: of a prepared image, in pixels.

    Raises: InputError if a crop exceeds the image, the backbone cannot take it, or a region loss would match a
        single region.
    """
    views, notes = recipe.views, []
    sizes = {"views.global_size": (views.global_size,), "views.local_sizes": views.local_sizes}
    for key, size in ((key, size) for key, group in sizes.items() for size in group):
        if views.policy == "lens_safe" and math.ceil(3 * views.lens_safe.psf_sigma_px[1]) >= size:
            raise InputError(
                f"views.lens_safe.psf_sigma_px reaches {views.lens_safe.psf_sigma_px[1]} px, too wide a blur for "
                f"{key}={size}; set it below {size / 3:.1f} px"
            )
        if size > min(height, width):
            raise InputError(
                f"{key}={size} exceeds the image, {height}x{width} px after data.center_crop and data.bin; "
                f"set {key} to {min(height, width)} or less"
            )
        rows, columns = backbone.map_size(size, size)
        notes.append(f"{key}={size}: {rows}x{columns} regions on the last map")
        if recipe.loss.region_weight == 0 or rows * columns >= FEW_REGIONS:
            continue
        advice = f"lower model.patch_size or model.stages, raise {key}, or set loss.region_weight=0"
        if rows * columns == 1:
            raise InputError(f"{key}={size} leaves a 1x1 last map, on which a region loss means nothing; {advice}")
        notes[-1] += f", few for a region loss; {advice}"
    return notes
