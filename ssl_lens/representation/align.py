"""`align`: a backbone gets a linear map, fitted to renderings of simulated lenses, as its last layer."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_lens.data.images import load_images
from ssl_lens.data.renderings import LENS, lens_numbers
from ssl_lens.data.source import open_source, to_train_on
from ssl_lens.errors import arguments_named
from ssl_lens.representation.alignment import Keep, fit_alignment
from ssl_lens.representation.export import ExportCheck, write_export
from ssl_lens.representation.extract import extract
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone
from ssl_lens.representation.pooling_names import Pooling


class Aligned(NamedTuple):
    """What an alignment found.

    Attributes:
        lenses: that were fitted to.
        features: before the map; kept: behind it.
        shared: directions of them that the renderings of a lens share.
        signal: of every direction, the variance between lenses over that within.
        check: as of `export`.
    """

    lenses: int
    features: int
    kept: int
    shared: int
    signal: np.ndarray
    check: ExportCheck


def align(
    target: str | Path,
    out: str | Path,
    *,
    pairs: str | Path,
    data: str | Path,
    column: str = LENS,
    keep: Keep = "all",
    pooling: Pooling | None = None,
    exclude: Path | None = None,
) -> Aligned:
    """Exports a backbone with a linear map behind its features, in which renderings of one lens agree.

    Renderings of a lens share its mass and nothing else, so that what they share is what is to be learned; no label is
    used. The preprocessing and the features of either set are standardised by its own numbers.

    Args:
        target: folder of a run or an export; a map that it has is replaced.
        out: folder for the export, as of `export`.
        pairs: images of lenses with two or more renderings each, as `simulate` makes them with renderings=2.
        data: images that the backbone is to be used on, without labels; what they hold out for tests is left out.
        column: number in the table of `pairs` that is the same for all renderings of a lens.
        keep: all directions, the shared ones enlarged, or shared: those alone, for images that are as the pairs are.
        exclude: file of the names of images of `data` to leave out.
        pooling: what is mapped; None for the export's own, and for stage_rings of a run.

    Raises: InputError if something given cannot be used; otherwise as `export`.
    """
    frozen = load_backbone(target, pooling=pooling)
    frozen = FrozenBackbone(frozen.preprocess, frozen.backbone, frozen.pooling)
    policy, channels = frozen.preprocess.policy, frozen.preprocess.in_channels
    with arguments_named({"path": "pairs"}):
        rendered = to_train_on(load_images(Path(pairs), in_channels=channels, policy=policy))
    numbers = lens_numbers(rendered, column)
    with arguments_named({"path": "data"}):
        images = open_source(str(data), in_channels=channels, policy=policy, exclude=exclude)
    features = extract(frozen.fitted(rendered.images), rendered.images, progress="pairs")
    fitted = fit_alignment(features, numbers, keep=keep)
    aligned = FrozenBackbone(frozen.preprocess, frozen.backbone, frozen.pooling, fitted.alignment)
    height, width = images.shape[1:]
    check = write_export(aligned.fitted(images.sample(), policy=images.policy), Path(out), (height, width))
    kept = fitted.alignment.directions.shape[1]
    lenses = len(np.unique(numbers))
    return Aligned(lenses, features.shape[1], kept, fitted.shared, fitted.signal, check)
