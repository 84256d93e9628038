"""What watches a run of a recipe: a probe where there are labels, and views of a fixed sample of its images."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ssl_lens.backbones.backbone import Encoder, MapBackbone
from ssl_lens.data.pack.packed_images import Images, subset
from ssl_lens.data.pixels.preprocess import Preprocess, evenly_spaced
from ssl_lens.engine.best import Best
from ssl_lens.engine.probe import OnlineProbe
from ssl_lens.engine.sampled_views import Sampled, SampledViews
from ssl_lens.engine.watch import Watch
from ssl_lens.recipe.recipe import Recipe
from ssl_lens.representation.export import write_network
from ssl_lens.representation.frozen import FrozenBackbone
from ssl_lens.runs.folder import RunFolder
from ssl_lens.views.multicrop import MultiCrop, views_of_features

MOST_SAMPLED = 512  # images, or lenses of several renderings
SHARE_SAMPLED = 4  # one of so many, so that what a short epoch takes is not taken by it
FEWEST_SAMPLED = 64
AT_ONCE = 64


def watch_of(
    recipe: Recipe,
    folder: RunFolder,
    probe: OnlineProbe | None,
    sample: SampledViews,
    preprocess: Preprocess,
    shape: tuple[int, ...],
) -> Watch:
    """What measures a run: its probe says what features are worth, or where there is none, the sample.

    Args:
        preprocess: of the frozen backbone.
        shape: [C, H, W] of the raw images.
    """

    def write(backbone: Encoder, made: Path) -> None:
        assert isinstance(backbone, MapBackbone), "features are pooled from maps"
        own = copy.deepcopy(backbone)  # the run's stays as it is
        write_network(FrozenBackbone(preprocess, own, recipe.features.pooling), made, (shape[1], shape[2]))

    if probe is None:
        return Watch(folder, (sample,), dict, Best(folder.best, write, "views"))
    return Watch(folder, (probe, sample), probe.measure_wavelets, Best(folder.best, write, "probe"))


class SampleOfImages:
    """Views of evenly spaced raw images [N k, C, H, W] of k renderings each, the same whenever they are asked for.

    Args:
        preprocess: of what `multicrop` makes views of; frozen: of whole images.
    """

    def __init__(
        self,
        images: Images,
        renderings: int,
        preprocess: Preprocess,
        frozen: Preprocess,
        multicrop: MultiCrop,
        *,
        seed: int,
    ) -> None:
        self.index, rows = sampled_rows(len(images) // renderings, renderings)
        self.images, self.renderings, self.seed = subset(images, rows), renderings, seed
        self.preprocess, self.frozen, self.multicrop = preprocess, frozen, multicrop

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Sampled]:
        """Batch by batch, so that a sample of large images needs little memory."""
        for part in np.array_split(np.arange(len(self)), -(-len(self) // AT_ONCE)):
            rows = (part[:, None] * self.renderings + np.arange(self.renderings)).ravel()
            raw = torch.from_numpy(np.array(self.images[rows], dtype=np.float32)).to(self.preprocess.mean.device)
            linear = self.preprocess.linear(raw)
            if self.renderings > 1:
                linear = linear.unflatten(0, (-1, self.renderings))
            views = self.multicrop(linear, torch.from_numpy(self.index[part]), seed=self.seed, epoch=0)
            yield Sampled(self.frozen(raw[:: self.renderings]), views.global_crops[:2])


class SampleOfFeatures:
    """The same of what the fixed part of a network says of images [N k, F], which are views as they are."""

    def __init__(self, features: np.ndarray, renderings: int, device: torch.device) -> None:
        self.index, rows = sampled_rows(len(features) // renderings, renderings)
        self.features = torch.from_numpy(features[rows]).to(device).unflatten(0, (-1, renderings))

    def __len__(self) -> int:
        return len(self.index)

    def __iter__(self) -> Iterator[Sampled]:
        yield Sampled(self.features[:, 0], views_of_features(self.features, 0).global_crops)


def sampled_rows(objects: int, renderings: int) -> tuple[np.ndarray, np.ndarray]:
    """Which objects are sampled [n], and the rows of all their renderings [n k]."""
    count = min(MOST_SAMPLED, max(FEWEST_SAMPLED, objects // SHARE_SAMPLED))
    index = evenly_spaced(objects, count)
    return index, (index[:, None] * renderings + np.arange(renderings)).ravel()
