"""What a run starts with, or why it cannot: images, preprocessing, sizes and batch that fit, network and method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ssl_lens.backbones.backbone import FixedFrontBackbone, MapBackbone
from ssl_lens.data.batches import Plan, fitting_batch_size
from ssl_lens.data.formats.planes import listed
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.levels import noise_of_images, noise_of_set, pixel_range
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.source import ImageSource
from ssl_lens.engine.probe import OnlineProbe
from ssl_lens.engine.sampled_views import Sample, SampledViews
from ssl_lens.engine.section import Optim
from ssl_lens.errors import InputError, arguments_named
from ssl_lens.methods.method import Method
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.monitors import SampleOfFeatures, SampleOfImages
from ssl_lens.recipe.network import backbone, build_method, check_sizes, network_to_train
from ssl_lens.recipe.recipe import Recipe, replace, resolve_auto
from ssl_lens.representation.extract import fixed_features
from ssl_lens.representation.frozen import adapt
from ssl_lens.views.multicrop import MultiCrop
from ssl_lens.views.policy import Sky

OPTIM_KEYS = {name: f"optim.{name}" for name in Optim.model_fields}
CROPS = ("global_size", "local_sizes")  # of views


class Opened(NamedTuple):
    """The images of a recipe: those to train on, those of the probe, and raw ones [n, C, H, W] to fit to."""

    images: ImageSource
    labelled: ImageSet | None
    raw: Images


@dataclass(frozen=True)
class Start:
    """What is ready before the first step.

    Attributes:
        recipe: with every `auto` resolved, and crops and a batch that the images allow.
        preprocess: of the images that `multicrop` makes views of, which have its margin, before their stretch.
        frozen: of the images that the frozen backbone sees whole: in the probe, in evaluations, in exports.
        trunk: the network that `method` trains.
        features: what its fixed part says of every image [N k, F], where no view differs from its image; else None.
        probe: that watches it, if there are labelled images; sample: of its own images, that does so without labels.
        choices: a line on each choice that was made.
    """

    recipe: Recipe
    preprocess: Preprocess
    frozen: Preprocess
    multicrop: MultiCrop
    method: Method
    trunk: MapBackbone
    features: np.ndarray | None
    probe: OnlineProbe | None
    sample: SampledViews
    choices: tuple[str, ...]


def open_images(recipe: Recipe, *, quarantine: Path | None = None) -> Opened:
    """Opens the images of a recipe.

    Raises: InputError as `images.image_source` and `images.labelled_set`.
    """
    images = recipe_images.image_source(recipe, quarantine=quarantine)
    labelled = recipe_images.labelled_set(recipe, images.shape)
    return Opened(images, labelled, images.sample())


def start(
    recipe: Recipe,
    opened: Opened,
    *,
    device: torch.device | None = None,
    processes: int = 1,
    resuming: bool = False,
) -> Start:
    """Fits a recipe to its images and builds its method; nothing is written.

    Args:
        device: of the preprocessing.
        processes: that share a batch.
        resuming: as of `network_to_train`.

    Raises: InputError for whatever in the recipe or its images cannot work.
    """
    images = opened.images
    if images.renderings == 1 and not recipe.views.chosen.changes_pixels:
        raise InputError(
            f"views.policy={recipe.views.policy} leaves images as they are, so that there must be two or more of each "
            "lens; set data.renderings=COLUMN, leave data.path out to simulate lenses with simulate.renderings=2, or "
            "set views.policy=lens_safe"
        )
    recipe, choices = crops_that_fit(recipe, *images.shape)
    preprocess = recipe_images.preprocess(recipe, opened.raw, images.policy).to(device or torch.device("cpu"))
    wide, multicrop = views_of(recipe, preprocess, images, opened.raw)
    recipe, smaller = _batch_that_fits(recipe, len(images), processes)
    recipe, resolved = resolve_auto(recipe, n_images=len(images), in_channels=images.shape[0])
    trunk = network_to_train(recipe, resuming=resuming)
    height, width = _output_size(preprocess, images.shape)
    regions = check_sizes(recipe, trunk, height, width)
    frozen = preprocess.fitted(*trunk.size_rule)
    seen = _seen_whole(frozen, trunk, (height, width), opened)
    features = _kept_features(recipe, trunk, preprocess, opened.raw, (height, width))
    method = build_method(recipe, trunk)  # which copies the network, and what it knows of its images
    labelled = opened.labelled
    probe = None if labelled is None else _probe(recipe, labelled, frozen)
    sample: Sample
    if features is None:
        sample = SampleOfImages(opened.raw, images.renderings, wide, frozen, multicrop, seed=recipe.seed)
    else:
        sample = SampleOfFeatures(features, images.renderings, preprocess.mean.device)
    choices += [*smaller, *resolved, *regions, *seen, *_noise_of_views(recipe, images)]
    return Start(recipe, wide, frozen, multicrop, method, trunk, features, probe, SampledViews(sample), tuple(choices))


def _probe(recipe: Recipe, labelled: ImageSet, frozen: Preprocess) -> OnlineProbe:
    """The probe; where the run's own images are simulated, its images have the levels and scatter of another domain."""
    if recipe.data.path is None:
        frozen = frozen.refitted(labelled.images, policy=labelled.policy)
    return OnlineProbe(labelled, frozen, recipe.features.pooling, seed=recipe.seed)


def _kept_features(
    recipe: Recipe, trunk: MapBackbone, preprocess: Preprocess, raw: Images, size: tuple[int, int]
) -> np.ndarray | None:
    """Lets a network with a fixed front know the domain of its images; its features of all of them, if views are the
    images as they are, so that each is looked at once.

    Args:
        raw: all images, or some that stand for them where views differ from them.
        size: of a prepared image, in pixels.
    """
    views = recipe.views
    if not isinstance(trunk, FixedFrontBackbone):
        return None
    is_whole = size == (views.global_size, views.global_size) and not views.local_sizes
    if views.chosen.changes_pixels or not is_whole:
        adapt(trunk, preprocess, raw)
        return None
    device = preprocess.mean.device
    features = fixed_features(trunk.to(device), preprocess, raw, progress=recipe.model.name)
    trunk.set_domain(features.to(device))
    return features.numpy()


def views_of(recipe: Recipe, preprocess: Preprocess, images: ImageSource, raw: Images) -> tuple[Preprocess, MultiCrop]:
    """What makes views: a preprocessing, and what is to be given the linear pixels that it makes of raw images.

    Views that are turned show in their corners what the files have around `data.center_crop`.

    Args:
        raw: images [n, C, H, W] that stand for all.
    """
    wide, margin = preprocess.widened(recipe.views.margin, *raw.shape[2:])
    known, k = _known_noise(images), images.renderings
    noise = noise_of_set(preprocess, raw) if known is None else noise_of_images(preprocess, known)
    sky = Sky(preprocess.linear_sky.cpu(), noise.expand(len(images) * k, -1).unflatten(0, (-1, k)))
    return wide, recipe.views.multicrop(wide.stretched, pixel_range(preprocess, raw), sky=sky, margin=margin)


def _known_noise(images: ImageSource) -> np.ndarray | None:
    """The noise of the images, if it is known of some of them in every channel."""
    noise = images.noise
    return noise if noise is not None and np.isfinite(noise).any(axis=0).all() else None


def _noise_of_views(recipe: Recipe, images: ImageSource) -> list[str]:
    """A line on the noise that views add, if noise maps are read."""
    added = recipe.views.chosen.added_noise()
    if not recipe.data.noise or added is None:
        return []
    maps, noise = f"data.noise={listed(recipe.data.noise)}", _known_noise(images)
    ratio = f"{added[0]:g} to {added[1]:g} times the noise of"
    if noise is None:
        return [
            f"{maps} flags pixels alone, and views add {ratio} the whole set: shards are streamed, or no name says "
            "that it is a sigma, a variance or an inverse variance"
        ]
    middle = " ".join(f"{value:.3g}" for value in np.nanmedian(noise, axis=0))
    return [f"views add {ratio} each image, which {maps} says: in the middle {middle}"]


def crops_that_fit(recipe: Recipe, channels: int, height: int, width: int) -> tuple[Recipe, list[str]]:
    """The recipe, with crops no larger than the images, and a line on each that became smaller.

    Args:
        channels, height, width: of the raw images.
    """
    smaller: dict[str, object] = {}
    side = min(height, width)
    crop, bin = recipe.data.center_crop, recipe.data.bin
    if crop is not None and crop > side:
        smaller["data.center_crop"] = crop = side
    prepared = (crop or side) // bin
    if prepared and max(recipe.views.global_size, *recipe.views.local_sizes, 0) > prepared:
        multiple = backbone(recipe, channels).size_rule.multiple
        most = max(prepared // multiple, 1) * multiple
        views = recipe.views
        smaller["views.global_size"] = min(views.global_size, most)
        smaller["views.local_sizes"] = [min(size, most) for size in views.local_sizes]
    before = recipe.model_dump(mode="json")
    changed = {key: value for key, value in smaller.items() if before[key.split(".")[0]][key.split(".")[1]] != value}
    return replace(recipe, changed) if changed else recipe, list(_lines(before, changed, f"{height}x{width} px"))


def _lines(before: dict[str, dict[str, object]], changed: dict[str, object], size: str) -> Iterator[str]:
    for key, value in changed.items():
        section, name = key.split(".")
        yield f"{key}: {before[section][name]} -> {value}, as the images are {size}"


@arguments_named(OPTIM_KEYS)
def _batch_that_fits(recipe: Recipe, n_images: int, processes: int) -> tuple[Recipe, list[str]]:
    """The recipe, with a smaller batch and a line that says so where the set is smaller than one.

    Raises: InputError if there are fewer images than a batch has parts, or the parts are not equal.
    """
    asked, accumulate = recipe.optim.batch_size, recipe.optim.accumulate
    size = fitting_batch_size(asked, n_images, processes * accumulate)
    Plan(size, accumulate, recipe.seed, 0, processes).check(n_images)
    if size == asked:
        return recipe, []
    return replace(recipe, {"optim.batch_size": size}), [
        f"optim.batch_size: {asked} -> {size}, as there are only {n_images} images"
    ]


@arguments_named(recipe_images.DATA_KEYS)
def _output_size(preprocess: Preprocess, shape: tuple[int, ...]) -> tuple[int, int]:
    return preprocess.output_size(shape[1], shape[2])


@arguments_named(recipe_images.DATA_KEYS)
def _seen_whole(frozen: Preprocess, trunk: MapBackbone, prepared: tuple[int, int], opened: Opened) -> list[str]:
    """Refuses images that the network cannot take whole; gives a line if it sees a part of them.

    Training sees crops, but the probe, evaluations and exports see all that is left of an image.
    """
    seen = frozen.output_size(opened.images.shape[1], opened.images.shape[2])
    trunk.map_size(*seen)
    if opened.labelled is not None:
        try:
            trunk.map_size(*frozen.output_size(opened.labelled.shape[1], opened.labelled.shape[2]))
        except InputError as error:
            raise InputError(f"data.probe: {error}") from error
    if seen == prepared:
        return []
    return [
        f"the frozen backbone sees the central {seen[0]}x{seen[1]} of {prepared[0]}x{prepared[1]} px, as the network "
        f"takes {trunk.accepted_sizes}"
    ]
