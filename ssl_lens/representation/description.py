"""What the folder of a run or of an export says of itself, checked by types and sizes before anything is built."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import torch

from ssl_lens.backbones.options import MOST, Bounds, Count, Options, field_names
from ssl_lens.data.folders.layouts import Sizes
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.data.pixels.stretch import Kind
from ssl_lens.errors import InputError
from ssl_lens.files import MOST_LISTING, read_json
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.representation.shipped import folder_of
from ssl_lens.runs.folder import RunFolder

CONFIG, WEIGHTS, ALIGNMENT = "config.json", "backbone.safetensors", "alignment.safetensors"  # of an export


@dataclass(frozen=True)
class _Numbers(Options):
    """The parts of a preprocessing's configuration that are not sections of their own."""

    center_crop: Count | None
    bin: Count
    multiple: Count
    largest: tuple[Count, Count] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sky: tuple[float, ...]


@dataclass(frozen=True)
class _Stretch(Options):
    kind: Kind
    low: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True)
class _Policy(Options):
    mask_value: float | None
    max_masked: Annotated[float, Bounds(0, 1)]
    sizes: Sizes
    size: tuple[Count, Count] | None
    planes: tuple[int | str, ...]
    noise: tuple[int | str, ...]
    mask: tuple[int | str, ...]


def is_export(path: Path) -> bool:
    """Whether a folder is an export, or what is left of one."""
    return os.path.lexists(path / CONFIG)


def load_preprocess(path: Path | str) -> Preprocess:
    """What `load_backbone` puts in front of the backbone, of a run or an export; reads no weights.

    Raises: InputError as `load_backbone`.
    """
    path = folder_of(path)
    if is_export(path):
        return _preprocess(export_config(path)["preprocess"], path / CONFIG)
    file = run_at(path).preprocess
    return _preprocess(read_json(file), file)


def raw_size(path: Path | str) -> tuple[int, int]:
    """Height and width in pixels of the raw images that a run was trained on, or an export's ONNX model takes.

    Raises: InputError as `load_backbone`.
    """
    path = folder_of(path)
    if is_export(path):
        size, file = export_config(path).get("image_size"), path / CONFIG
    else:
        file = run_at(path).images
        shape = read_json(file, most=MOST_LISTING).get("shape")
        size = shape[1:] if isinstance(shape, list) else None
    if (
        not isinstance(size, list)
        or [type(side) for side in size] != [int, int]
        or not 1 <= min(size) <= max(size) <= MOST
    ):
        raise InputError(f"{file} does not say how large the images are; give image_size")
    return size[0], size[1]


def export_config(folder: Path) -> dict[str, Any]:
    """What `export.write_export` says of itself: backbone, preprocess, pooling, aligned, image_size, versions."""
    config = read_json(folder / CONFIG)
    pooling = config.get("pooling")
    backbone = config.get("backbone")
    known = isinstance(pooling, str) and pooling in get_args(Pooling) and isinstance(config.get("aligned"), bool)
    if not isinstance(backbone, dict) or not known:
        raise InputError(f"{folder / CONFIG} is not that of an export; export the run again")
    return config


def network_of_run(path: Path) -> dict[str, Any]:
    """What a run says of the network it trains: `seed`, `backbone`, its configuration, and `pooling`."""
    file = run_at(path).backbone
    start = read_json(file)
    backbone, seed = start.get("backbone"), start.get("seed")
    known = isinstance(start.get("pooling"), str) and start["pooling"] in get_args(Pooling)
    if type(seed) is not int or not 0 <= seed < 1 << 63 or not isinstance(backbone, dict) or not known:
        raise InputError(f"{file} is not that of a run; train it again")
    return start


def run_at(path: Path) -> RunFolder:
    """The run in a folder.

    Raises: InputError if there is none.
    """
    folder = RunFolder(path)
    if not os.path.lexists(folder.backbone):
        raise InputError(
            f"{path} is neither a run (no {folder.backbone.name}) nor an export (no {CONFIG}); "
            "give the folder that pretraining or `ssl-lens export` wrote"
        )
    return folder


def _preprocess(config: Any, source: Path) -> Preprocess:
    """The preprocessing of a configuration, whose types and numbers are checked first."""
    try:
        own = {key: value for key, value in config.items() if key not in ("stretch", "policy")}
        for kind, values in ((_Numbers, own), (_Stretch, config["stretch"]), (_Policy, config["policy"])):
            if values.keys() != set(field_names(kind)):
                raise InputError(f"has {', '.join(map(repr, values))}, needed are {', '.join(field_names(kind))}")
            kind(**values)
        preprocess = Preprocess.from_config(config)
        scales, places = (preprocess.std, preprocess.stretch.scale), (preprocess.mean, preprocess.stretch.low)
        if not all(numbers.isfinite().all() for numbers in (*scales, *places)) or min(map(torch.min, scales)) <= 0:
            raise InputError("has numbers that are 0 or infinite in float32")
        return preprocess
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        reason = str(error) if isinstance(error, InputError) else repr(error)
        raise InputError(
            f"{source} holds no preprocessing that can be used ({reason}); write {source.parent} again"
        ) from None
