"""Where a name in a recipe becomes an object; networks are in `build_backbone`."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_lens.build_backbone import backbone
from ssl_lens.data.pixels import PixelPolicy
from ssl_lens.data.preprocess import Preprocess, fit_preprocess
from ssl_lens.engine.schedules import Schedules
from ssl_lens.errors import InputError
from ssl_lens.losses.center import Centering, SinkhornKnopp
from ssl_lens.losses.criterion import Criterion
from ssl_lens.losses.region import RegionLoss
from ssl_lens.losses.view import ViewLoss
from ssl_lens.models.backbone import Backbone
from ssl_lens.models.heads import ProjectionHead
from ssl_lens.models.network import Network
from ssl_lens.views.colour_jitter import ColourJitter
from ssl_lens.views.geometry import ImageNetCrops, LensSafe
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.photometry import Effect, Photometry

if TYPE_CHECKING:  # an exported backbone is rebuilt here with torch and timm alone
    from ssl_lens.data.images import ImageSet
    from ssl_lens.data.packed_images import Images
    from ssl_lens.data.shards.shard_set import ShardSet
    from ssl_lens.recipe import Recipe
    from ssl_lens.sections import Simulate

logger = logging.getLogger(__name__)

MOST_TO_FIT = 512 << 20  # bytes of raw images that are read from shards at once
FEW_REGIONS = 9  # of a local crop's last map; below, matching regions means little


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
    from ssl_lens.data.simulate import default_set

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


def network(recipe: Recipe) -> Network:
    """Backbone and heads with fresh weights, for a recipe whose `auto` values are resolved."""
    trunk = backbone(recipe, recipe.data.in_channels)
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


def check_sizes(recipe: Recipe, backbone: Backbone, height: int, width: int) -> list[str]:
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
