"""A frozen backbone: raw images in, the features that are measured out; and how one is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import Features, MapBackbone
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.representation.inputs import AnyImages, as_batch, batches_of, device_of
from ssl_lens.representation.network_file import build_network, read_weights
from ssl_lens.representation.pooling import pool_maps, pooled
from ssl_lens.representation.pooling_names import DEFAULT_POOLING, Pooling
from ssl_lens.runs.checkpoint import METHOD, backbone_weights, load_into, newest_good
from ssl_lens.runs.folder import RunFolder

CONFIG, WEIGHTS = "config.json", "backbone.safetensors"  # of an export


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
    """

    def __init__(self, preprocess: Preprocess, backbone: MapBackbone, pooling: Pooling = DEFAULT_POOLING) -> None:
        super().__init__()
        self.preprocess, self.backbone, self.pooling = preprocess, backbone, pooling
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
        return pooled(self.backbone, prepared, self.pooling).to(prepared.dtype)

    def prepare(self, images: Tensor) -> Tensor:
        """What the backbone sees of raw images, in its type and on its device: [B, C, h, w]."""
        batch = as_batch(images, self.preprocess.in_channels)
        return self.preprocess(batch.to(self.device)).to(self.dtype)

    def check_size(self, height: int, width: int) -> None:
        """Raises InputError if raw images of this size, in pixels, are too small for the crop or the network."""
        self.backbone.map_size(*self.preprocess.output_size(height, width))

    def represent(self, prepared: Tensor) -> Representation:
        """What the backbone says of preprocessed images [B, C, h, w]."""
        if self.pooling == "view":
            features = self.backbone(prepared)
            return Representation(features.view, features.view, features.regions)
        features, stages = _features_and_stages(self.backbone, prepared)
        return Representation(pool_maps(stages, self.pooling).to(features.view.dtype), features.view, features.regions)

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
        """Moves or casts everything but the numbers of the preprocessing, which stay float32."""
        super()._apply(fn, recurse)
        self.preprocess = Preprocess.from_config(self.preprocess.config()).to(self.device)
        return self


def _features_and_stages(backbone: MapBackbone, prepared: Tensor) -> tuple[Features, list[Tensor]]:
    """Both from one pass where the view is the mean of the last map; from two where a network has its own."""
    stages = backbone.stages(prepared)
    if type(backbone).forward is not MapBackbone.forward:
        return backbone(prepared), stages
    regions = stages[-1].flatten(2).transpose(1, 2)
    return Features(regions.mean(dim=1), regions), stages


def load_backbone(path: Path | str, *, pooling: Pooling | None = None) -> FrozenBackbone:
    """The frozen backbone of a run folder (its newest intact checkpoint) or of an export, on the CPU.

    Args:
        pooling: what becomes `features`; None for what the export says, and for stage_rings of a run.

    Raises: InputError if the path is neither, holds the weights of another network, or there is no such pooling.
    """
    path = Path(path)
    if pooling is not None and pooling not in get_args(Pooling):
        raise InputError(f"pooling={pooling!r} is unknown; give {', '.join(get_args(Pooling))}")
    preprocess = load_preprocess(path)
    if _is_export(path):
        config = _export_config(path)
        backbone = build_network(config["backbone"], read_weights(path / WEIGHTS), source=path / WEIGHTS)
        pooling = pooling or config["pooling"]
    else:
        backbone = _network_of_run(path)
    if backbone.in_channels != preprocess.in_channels:
        raise InputError(
            f"{path} prepares images of {preprocess.in_channels} channels for a network that takes "
            f"{backbone.in_channels}; its parts do not belong together, write it again"
        )
    return FrozenBackbone(preprocess, backbone, pooling or DEFAULT_POOLING)


def load_preprocess(path: Path | str) -> Preprocess:
    """What `load_backbone` puts in front of the backbone, of a run or an export; reads no weights.

    Raises: InputError as `load_backbone`.
    """
    path = Path(path)
    if _is_export(path):
        return _preprocess(_export_config(path)["preprocess"], path / CONFIG)
    file = _run(path).preprocess
    return _preprocess(_read_json(file), file)


def untrained_backbone(path: Path | str, *, seed: int | None = None) -> MapBackbone:
    """The network of a run or an export with fresh weights, on the CPU.

    Args:
        seed: None for the very weights that a run began with; for an export, 0.

    Raises: InputError as `load_backbone`.
    """
    path = Path(path)
    if _is_export(path):
        config = _export_config(path)["backbone"]
        build_network(config, read_weights(path / WEIGHTS), source=path / WEIGHTS)  # refuses what is not an export
        config = catalog.unfolded(config)
    else:
        start = _run_network(path)
        config, seed = start["backbone"], start["seed"] if seed is None else seed
    torch.manual_seed(seed or 0)
    return catalog.backbone_from_config(config)


def raw_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels of the raw images that a run was trained on, or an export's ONNX model takes.

    Raises: InputError as `load_backbone`.
    """
    path = Path(path)
    if _is_export(path):
        size, file = _export_config(path).get("image_size"), path / CONFIG
    else:
        file = _run(path).images
        size = _read_json(file).get("shape", [])[1:]
    if not isinstance(size, list) or [type(side) for side in size] != [int, int]:
        raise InputError(f"{file} does not say how large the images are; give image_size")
    return size[0], size[1]


def _is_export(path: Path) -> bool:
    return (path / CONFIG).is_file()


def _export_config(folder: Path) -> dict[str, Any]:
    """What `export.write_export` says of itself: backbone, preprocess, pooling, image_size, versions."""
    config = _read_json(folder / CONFIG)
    parts = [config.get(part) for part in ("backbone", "preprocess")]
    if not all(isinstance(part, dict) for part in parts) or config.get("pooling") not in get_args(Pooling):
        raise InputError(f"{folder / CONFIG} is not that of an export; export the run again")
    return config


def _network_of_run(path: Path) -> MapBackbone:
    start = _run_network(path)
    checkpoint = newest_good(_run(path).checkpoints)
    if checkpoint is None:
        raise InputError(f"{path} holds no intact checkpoint yet; let pretraining finish an epoch")
    backbone = catalog.backbone_from_config(start["backbone"])
    load_into(backbone, backbone_weights(checkpoint), source=checkpoint / METHOD)
    return backbone


def _run_network(path: Path) -> dict[str, Any]:
    """What a run says of the network it trains: `seed`, and `backbone`, its configuration."""
    file = _run(path).backbone
    start = _read_json(file)
    backbone = start.get("backbone")
    if not isinstance(start.get("seed"), int) or not isinstance(backbone, dict) or "architecture" not in backbone:
        raise InputError(f"{file} is not that of a run; train it again")
    return start


def _run(path: Path) -> RunFolder:
    folder = RunFolder(path)
    if not folder.backbone.is_file():
        raise InputError(
            f"{path} is neither a run (no {folder.backbone.name}) nor an export (no {CONFIG}); "
            "give the folder that pretraining or `ssl-lens export` wrote"
        )
    return folder


def _preprocess(config: dict[str, Any], source: Path) -> Preprocess:
    try:
        return Preprocess.from_config(config)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise InputError(
            f"{source} holds no preprocessing that can be used ({error!r}); write {source.parent} again"
        ) from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); write {file.parent} again") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not what it should be; write {file.parent} again")
    return content
