"""A frozen backbone: raw images in, the features that are measured out; and how one is loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import FixedFrontBackbone, MapBackbone
from ssl_lens.backbones.weights import check_numbers, read_tensors, tensor_shapes
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.data.pixels.preprocess import Preprocess, evenly_spaced
from ssl_lens.data.pixels.stretch import Kind
from ssl_lens.errors import InputError
from ssl_lens.representation.alignment import Alignment
from ssl_lens.representation.description import (
    ALIGNMENT,
    CONFIG,
    WEIGHTS,
    export_config,
    is_export,
    load_preprocess,
    network_of_run,
    run_at,
)
from ssl_lens.representation.inputs import BATCH_SIZE, AnyImages, as_batch, batches_of, device_of
from ssl_lens.representation.network_file import build_network
from ssl_lens.representation.pooling import features_and_stages, pool_features, pooled
from ssl_lens.representation.pooling_names import DEFAULT_POOLING, Pooling
from ssl_lens.representation.shipped import folder_of
from ssl_lens.runs.checkpoint import METHOD, backbone_prefix, backbone_weights, load_into, newest_whole
from ssl_lens.transfer import sent

MOST_TO_FIT = 4096  # images that an alignment, or a domain, is fitted to


class Representation(NamedTuple):
    """What a frozen backbone says of images.

    Shapes: features [B, F], the pooled maps, which evaluators measure; view [B, D]; regions [B, N, D] in row-major
        order of the last map (N = height * width).
    """

    features: Tensor
    view: Tensor
    regions: Tensor


class FrozenBackbone(nn.Module):
    """Preprocessing, backbone and pooling in one: raw images in, features out; never trains.

    Stays in evaluation mode whatever it is part of; its parameters take no gradient, the images may. In half precision
    (`.half()`, `.to(torch.bfloat16)`) the preprocessing stays in float32, which alone holds a flux of 1e-12, and the
    statistics of the pooling do; what is returned has the type of the backbone.

    Attributes:
        pooling: what becomes `features`, as in `pooling.pooled`.
        alignment: a linear map of these; None for the pooled features themselves.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        backbone: MapBackbone,
        pooling: Pooling = DEFAULT_POOLING,
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.pooling, self.alignment = preprocess, backbone, pooling, alignment
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: AnyImages) -> Representation:
        """What the backbone says of raw images, flagged pixels and all, on the device of this module.

        Args:
            images: a tensor or an array [B, C, H, W], [B, H, W] of one channel, or one image [C, H, W] or [H, W]; or
                the path of an image file, of a folder, or several files, which are read as those of the fit were.
                Arrays and files go through the backbone in batches, a tensor at once.

        Raises: InputError if the images have another shape, another number of channels, or cannot be read.
        """
        if isinstance(images, Tensor):
            return self.represent(self.prepare(images))
        batches = batches_of(images, self.preprocess.in_channels, self.preprocess.policy)
        parts = [self.represent(self.prepare(batch)) for batch in batches]
        return Representation(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def features(self, images: Tensor) -> Tensor:
        """The `features` [B, F] of raw images alone, which may cost half as much as all that `forward` gives."""
        prepared = self.prepare(images)
        return self._mapped(pooled(self.backbone, prepared, self.pooling)).to(prepared.dtype)

    def prepare(self, images: Tensor) -> Tensor:
        """What the backbone sees of raw images, in its type and on its device: [B, C, h, w]."""
        batch = as_batch(images, self.preprocess.in_channels)
        return self.preprocess(sent(batch, self.device)).to(self.dtype)

    def fitted(
        self,
        images: Images,
        *,
        center_crop: int | None = None,
        bin: int | None = None,
        stretch: Kind | None = None,
        policy: PixelPolicy | None = None,
    ) -> FrozenBackbone:
        """The same backbone with its preprocessing fitted to raw images [N, C, H, W], such as of another telescope.

        Levels, scatter and sky of the images that it was trained on mean nothing for others. No labels are needed.

        Args:
            center_crop, bin, stretch, policy: as of `Preprocess.refitted`.

        Raises: InputError for images of other channels, too small, or constant.
        """
        preprocess = self.preprocess.refitted(images, center_crop=center_crop, bin=bin, stretch=stretch, policy=policy)
        backbone = copy.deepcopy(self.backbone) if isinstance(self.backbone, FixedFrontBackbone) else self.backbone
        adapt(backbone, preprocess, images)
        plain = FrozenBackbone(preprocess, backbone, self.pooling)
        if self.alignment is None:
            return plain
        return FrozenBackbone(
            preprocess, self.backbone, self.pooling, self.alignment.refitted(plain.features_of_many(images))
        )

    @torch.inference_mode()
    def features_of_many(self, images: Images) -> np.ndarray:
        """Features float32 [n, F] of at most 4096 evenly spaced raw images [N, C, H, W]."""
        batches = map(torch.from_numpy, _in_parts(images))
        return torch.cat([self.features(batch).float().cpu() for batch in batches]).numpy()

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError if raw images of this size, in pixels, are too small for the crop or the network."""
        self.backbone.map_size(*self.preprocess.output_size(height, width))

    def represent(self, prepared: Tensor) -> Representation:
        """What the backbone says of preprocessed images [B, C, h, w]."""
        alone = self.pooling == "view"
        features, stages = (self.backbone(prepared), []) if alone else features_and_stages(self.backbone, prepared)
        mapped = self._mapped(pool_features(features, stages, self.pooling))
        return Representation(mapped.to(features.view.dtype), features.view, features.regions)

    def _mapped(self, pooled_features: Tensor) -> Tensor:
        return pooled_features if self.alignment is None else self.alignment(pooled_features)

    @property
    def device(self) -> torch.device:
        return device_of(self.preprocess)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the backbone's numbers."""
        return next((weights.dtype for weights in self.backbone.parameters()), torch.float32)

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in evaluation mode, also where the module around it trains."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenBackbone:
        """Moves or casts everything but the numbers of preprocessing and alignment, which stay float32."""
        numbers = None if self.alignment is None else [value.clone() for value in self.alignment.buffers()]
        super()._apply(fn, recurse)
        if numbers is not None:
            self.alignment = Alignment(*(value.to(self.device) for value in numbers))
        self.preprocess = Preprocess.from_config(self.preprocess.config()).to(self.device)
        return self


@torch.inference_mode()
def adapt(backbone: MapBackbone, preprocess: Preprocess, images: Images) -> None:
    """Sets what a backbone with a fixed front knows of its images' domain, from at most 4096 raw images [N, C, H, W].

    Other backbones know nothing of it, and stay as they are.
    """
    if isinstance(backbone, FixedFrontBackbone):
        device = device_of(preprocess)
        parts = (torch.from_numpy(part).to(device) for part in _in_parts(images))
        backbone.set_domain(torch.cat([backbone.fixed_features(preprocess(part)) for part in parts]))


def _in_parts(images: Images) -> Iterator[np.ndarray]:
    index = evenly_spaced(len(images), MOST_TO_FIT)
    return (images[part] for part in np.array_split(index, -(-len(index) // BATCH_SIZE)))


def load_backbone(path: Path | str, *, pooling: Pooling | None = None) -> FrozenBackbone:
    """The frozen backbone of a run folder (its newest intact checkpoint), of an export, or one that is shipped.

    It is on the CPU. `lens_small` is the one that comes with the package: fit it to your images before it is used.

    Args:
        path: a folder, or the name of a shipped backbone.
        pooling: what becomes `features`; None for what the run says, or the export, its alignment included.

    Raises: InputError if the path is neither, holds the weights of another network, or there is no such pooling.
    """
    path = folder_of(path)
    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError(f"pooling={pooling!r} is unknown; give {', '.join(get_args(Pooling))}")
    preprocess = load_preprocess(path)
    alignment = None
    if is_export(path):
        config = export_config(path)
        backbone = _backbone_of_export(path, config["backbone"])
        alignment = _read_alignment(path) if pooling is None and config["aligned"] else None
        pooling = pooling or config["pooling"]
    else:
        backbone = _backbone_of_run(path)
        pooling = pooling or network_of_run(path)["pooling"]
    if backbone.in_channels != preprocess.in_channels:
        raise InputError(
            f"{path} prepares images of {preprocess.in_channels} channels for a network that takes "
            f"{backbone.in_channels}; its parts do not belong together, write it again"
        )
    return FrozenBackbone(preprocess, backbone, pooling, alignment)


def untrained_backbone(path: Path | str, *, seed: int | None = None) -> MapBackbone:
    """The network of a run or an export with fresh weights, on the CPU.

    Args:
        seed: None for the very weights that a run began with; for an export, 0.

    Raises: InputError as `load_backbone`.
    """
    path = folder_of(path)
    if is_export(path):
        config = export_config(path)["backbone"]
        trained = _backbone_of_export(path, config)  # or refuses
        config = catalog.unfolded(config)
    else:
        start = network_of_run(path)
        trained = _backbone_of_run(path)  # or refuses
        config, seed = start["backbone"], start["seed"] if seed is None else seed
    torch.manual_seed(seed or 0)
    fresh = catalog.backbone_from_config(config)
    if isinstance(fresh, FixedFrontBackbone):
        assert isinstance(trained, FixedFrontBackbone), "built from the same configuration"
        fresh.take_domain(trained)
    return fresh


def _backbone_of_export(path: Path, config: dict[str, Any]) -> MapBackbone:
    source = path / WEIGHTS
    backbone = build_network(config, tensor_shapes(source), folded=True, described_in=path / CONFIG, source=source)
    _load(backbone, read_tensors(source), source)
    return backbone


def _backbone_of_run(path: Path) -> MapBackbone:
    start = network_of_run(path)
    checkpoint = newest_whole(run_at(path).checkpoints)
    prefix, source = backbone_prefix(checkpoint), checkpoint / METHOD
    shapes = {
        name.removeprefix(prefix): shape for name, shape in tensor_shapes(source).items() if name.startswith(prefix)
    }
    backbone = build_network(start["backbone"], shapes, folded=False, described_in=run_at(path).backbone, source=source)
    _load(backbone, backbone_weights(checkpoint), source)
    return backbone


def _load(backbone: MapBackbone, weights: dict[str, Tensor], source: Path) -> None:
    check_numbers(backbone.state_dict(), weights, source)
    load_into(backbone, weights, source=source)


def _read_alignment(folder: Path) -> Alignment:
    source = folder / ALIGNMENT
    shapes = tensor_shapes(source)
    count = shapes.get("mean", (0,))
    kept = shapes.get("directions", (0, 0))[1:]
    if len(count) != 1 or len(kept) != 1 or shapes != {"mean": count, "scale": count, "directions": (*count, *kept)}:
        raise InputError(f"{source} is not the linear map of a backbone; align it again")
    numbers = read_tensors(source)
    check_numbers({name: torch.empty(0) for name in shapes}, numbers, source)
    if min(numbers["scale"].min().item(), kept[0]) <= 0:
        raise InputError(f"{source} holds a scale that is not positive, or no direction; align it again")
    return Alignment(numbers["mean"], numbers["scale"], numbers["directions"])
