"""What is evaluated: a frozen backbone, fresh weights of its network, or the pixels that it sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.data.images import ImageSet
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import arguments_named
from ssl_lens.evaluation.turns import turned
from ssl_lens.recipe import images as recipe_images
from ssl_lens.recipe.network import backbone, load_starting_weights
from ssl_lens.recipe.recipe import Recipe, recipe_of
from ssl_lens.representation.description import CONFIG
from ssl_lens.representation.extract import extract, preprocessed
from ssl_lens.representation.frozen import FrozenBackbone, adapt, load_backbone, untrained_backbone
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.representation.shipped import folder_of, is_shipped

logger = logging.getLogger(__name__)

BATCH_SIZE = 256
UNTRAINED, PIXELS = "untrained", "pixels"


class Target:
    """What features and networks come from.

    Attributes:
        frozen: what gives the features; None: the preprocessed pixels are the features.
        network: what training with a seed begins with; None: there is no network to train.
        trained: whether the weights that it begins with have been trained, or there are none; else they are random.
    """

    def __init__(
        self,
        name: str,
        preprocess: Preprocess,
        frozen: FrozenBackbone | None,
        network: Callable[[int], FrozenBackbone] | None,
        *,
        trained: bool,
    ) -> None:
        self.name, self.preprocess, self.frozen = name, preprocess, frozen
        self.network, self.trained = network, trained
        self._features: np.ndarray | None = None  # [N, F] of an image set, of which _known [N] have been computed
        self._known = np.zeros(0, bool)

    def features(self, images: ImageSet, index: np.ndarray) -> np.ndarray:
        """Features float32 [n, F] of the images at `index`, computed once; always of the same set."""
        if self._features is None:
            self._known = np.zeros(len(images), bool)
        assert len(self._known) == len(images), "features are kept of one set"
        missing = np.unique(index[~self._known[index]])
        if len(missing):
            computed = self._computed(images.subset(missing))
            if self._features is None:
                self._features = np.empty((len(images), computed.shape[1]), computed.dtype)
            self._features[missing], self._known[missing] = computed, True
        assert self._features is not None
        return self._features[index]

    @torch.inference_mode()
    def turned_features(self, images: ImageSet, turn: int) -> np.ndarray:
        """Features of the preprocessed images, each turned by `turn` * 45 degrees."""
        prepared = preprocessed(self.preprocess, images.images)
        if self.frozen is None:
            return turned(prepared, turn).flatten(1).numpy()
        frozen = self.frozen.to(_device())
        batches = (turned(batch.to(frozen.device, frozen.dtype), turn) for batch in prepared.split(BATCH_SIZE))
        return torch.cat([frozen.represent(batch).features.float().cpu() for batch in batches]).numpy()

    def prepared(self, images: ImageSet, device: torch.device) -> Tensor:
        """What networks see, [N, C, h, w]: on the device, if half of its free memory holds it."""
        prepared = preprocessed(self.preprocess, images.images)
        if device.type == "cuda" and prepared.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            return prepared
        return prepared.to(device)

    def _computed(self, images: ImageSet) -> np.ndarray:
        if self.frozen is None:
            return preprocessed(self.preprocess, images.images).flatten(1).numpy()
        return extract(self.frozen.to(_device()), images.images, progress=self.name)


class Subject(NamedTuple):
    """A target before the images are read.

    Attributes:
        policy: how image files are to be read.
        in_channels: that the images must have; None: any number.
        check: raises InputError if raw images of a height and width in pixels cannot be taken.
        open: what makes the target, given the images that it may be fitted to.
        folder: for results; None: it has none.
    """

    name: str
    policy: PixelPolicy
    in_channels: int | None
    check: Callable[[int, int], None]
    open: Callable[[ImageSet], Target]
    folder: Path | None


def subjects(
    models: Sequence[str | Path | FrozenBackbone],
    overrides: Sequence[str] = (),
    *,
    untrained: bool = False,
    pixels: bool = False,
    pooling: Pooling | None = None,
) -> list[Subject]:
    """What is to be evaluated, in order: each model, the same network with fresh weights, the pixels of the first.

    Args:
        models: folders of runs or exports, frozen backbones, or names of networks and recipes, which have fresh weights
            and a preprocessing fitted to the images to train on.
        overrides: `key=value` changes to recipes.
        pooling: of the features; None: the one that belongs to a backbone.

    Raises: InputError if a model is nothing of all this.
    """
    names = _names(models)
    found: list[Subject] = []
    for model, name in zip(models, names, strict=True):
        twin = UNTRAINED if len(models) == 1 else f"{name} {UNTRAINED}"
        if isinstance(model, FrozenBackbone):
            found.append(_frozen_subject(name, model, None))
            continue
        recipe = recipe_of(str(model), overrides)
        if recipe is not None:
            found.append(_recipe_subject(name, recipe, pooling))
            continue
        frozen = load_backbone(model, pooling=pooling)
        folder = folder_of(model)
        found.append(_frozen_subject(name, frozen, None if is_shipped(model) else folder))
        if untrained:
            found.append(_untrained_subject(twin, frozen, folder))
    return [*found, _pixels_subject(found[0])] if pixels else found


def _frozen_subject(name: str, frozen: FrozenBackbone, folder: Path | None) -> Subject:
    def start(seed: int) -> FrozenBackbone:
        if folder is not None and (folder / CONFIG).is_file() and _is_folded(frozen.backbone):
            logger.warning(
                "%s is an export with folded steerable filters, which need not stay steerable in training; "
                "give its run to keep the symmetry",
                name,
            )
        return frozen

    target = Target(name, frozen.preprocess, frozen, start, trained=True)
    preprocess = frozen.preprocess
    return Subject(
        name, preprocess.policy, preprocess.in_channels, frozen.check_size, lambda images: target, folder
    )  # fmt: skip


def _is_folded(backbone: MapBackbone) -> bool:
    """Whether an export's backbone has plain convolutions for steerable ones."""
    config = catalog.backbone_config(backbone)
    return config != catalog.unfolded(config)


def _untrained_subject(name: str, trained: FrozenBackbone, folder: Path) -> Subject:
    def fresh(seed: int | None) -> FrozenBackbone:
        return FrozenBackbone(trained.preprocess, untrained_backbone(folder, seed=seed), trained.pooling)

    @cache
    def opened() -> Target:
        return Target(name, trained.preprocess, fresh(None), fresh, trained=False)

    preprocess = trained.preprocess
    return Subject(
        name, preprocess.policy, preprocess.in_channels, trained.check_size, lambda images: opened(), None
    )  # fmt: skip


def _recipe_subject(name: str, recipe: Recipe, pooling: Pooling | None) -> Subject:
    def opened(images: ImageSet) -> Target:
        preprocess = recipe_images.preprocess(recipe, images.images, images.policy)
        height, width = preprocess.output_size(*images.images.shape[2:])
        size = height if height == width else None

        def start(seed: int) -> FrozenBackbone:
            torch.manual_seed(seed)
            network = backbone(recipe, images.shape[0], size)
            if recipe.model.weights is not None:
                load_starting_weights(network, recipe.model.weights)
            fitted = preprocess.fitted(*network.size_rule)
            adapt(network, fitted, images.images)
            return FrozenBackbone(fitted, network, pooling or recipe.features.pooling)

        first = start(0)
        trained = recipe.model.weights is not None or not any(True for _ in first.parameters())
        return Target(name, first.preprocess, first, start, trained=trained)

    @arguments_named(recipe_images.DATA_KEYS)
    def check(height: int, width: int) -> None:
        Preprocess.plain(1, center_crop=recipe.data.center_crop, bin=recipe.data.bin).output_size(height, width)

    return Subject(name, recipe_images.pixel_policy(recipe), None, check, opened, None)


def _pixels_subject(first: Subject) -> Subject:
    return first._replace(
        name=PIXELS,
        open=lambda images: Target(PIXELS, first.open(images).preprocess, None, None, trained=False),
        folder=None,
    )


def _names(models: Sequence[str | Path | FrozenBackbone]) -> list[str]:
    """Short names, longer ones where two would be called the same."""
    short, whole = [], []
    for i, model in enumerate(models):
        path = None if isinstance(model, FrozenBackbone) else Path(model)
        own = "backbone" if len(models) == 1 else f"backbone {i + 1}"
        name = own if path is None else path.stem if path.suffix in (".yaml", ".yml") else path.resolve().name
        short.append(name)
        whole.append(own if path is None else str(model))
    return [name if short.count(name) == 1 else long for name, long in zip(short, whole, strict=True)]


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
