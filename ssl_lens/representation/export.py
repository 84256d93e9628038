"""A run becomes a frozen backbone on disk; `load_backbone` brings it back from either."""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import Backbone, Features
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.runs.checkpoint import load_into, newest_good

CONFIG, WEIGHTS, ONNX = "config.json", "backbone.safetensors", "backbone.onnx"  # of an export
RECIPE, PREFIX = "recipe.yaml", "backbone."  # of a run; the prefix marks the backbone among the teacher's weights
ONNX_OUTPUTS = ("view_features", "region_features")  # "view" alone would clash with a node of that name
TOLERANCE = 1e-5  # largest difference of exported and own features, relative to the largest feature
CHECKED_IMAGES = 4


class FrozenBackbone(nn.Module):
    """A backbone with its preprocessing inside: raw images in, features out; never trains.

    Shapes: raw images [B, C, H, W] as they come from disk, flagged pixels and all; returns
        Features(view [B, D], regions [B, N, D]).
    """

    def __init__(self, preprocess: Preprocess, backbone: Backbone) -> None:
        super().__init__()
        self.preprocess, self.backbone = preprocess, backbone
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, raw: Tensor) -> Features:
        return self.backbone(self.preprocess(raw))

    @torch.no_grad()
    def stages(self, raw: Tensor) -> list[Tensor]:
        """The backbone's maps [B, C_i, h_i, w_i], finest first."""
        return self.backbone.stages(self.preprocess(raw))

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Stays in evaluation mode; asking for training is an error."""
        if mode:
            raise RuntimeError("a FrozenBackbone does not train; take a copy of its .backbone")
        return super().train(False)


class ExportCheck(NamedTuple):
    """Largest difference from the run's features, relative to the largest feature; None: not checked."""

    weights: float
    onnx: float | None


def load_backbone(path: Path | str) -> FrozenBackbone:
    """The frozen backbone of a run folder (its newest intact teacher) or of an export, on the CPU.

    Raises: InputError if the path is neither, or holds the weights of another network.
    """
    path = Path(path)
    return _load_export(path) if (path / CONFIG).is_file() else _load_run(path)


def load_preprocess(path: Path | str) -> Preprocess:
    """What `load_backbone` puts in front of the backbone, of a run or an export; reads no weights.

    Raises: InputError as `load_backbone`.
    """
    path = Path(path)
    if (path / CONFIG).is_file():
        return Preprocess.from_config(_read_config(path)["preprocess"])
    _refuse_no_run(path)
    return _preprocess_of_run(path)


def untrained_backbone(path: Path | str, *, seed: int | None = None) -> Backbone:
    """The network of a run or an export with fresh weights, on the CPU.

    Args:
        seed: None for the very weights that a run began with; for an export, 0.

    Raises: InputError as `load_backbone`.
    """
    path = Path(path)
    if not (path / CONFIG).is_file():
        return _network_of_run(path, seed=seed)
    torch.manual_seed(seed or 0)
    return catalog.backbone_from_config(catalog.unfolded(_read_config(path)["backbone"]))


def export(run: Path | str, out: Path | str, *, image_size: int | None = None) -> ExportCheck:
    """Exports the teacher's backbone of a run, as `write_export` does.

    Args:
        image_size: side of the raw images in pixels, for ONNX alone; None for the size the run was trained on.
    Raises: InputError if `run` is no run or `out` is a file; RuntimeError as `write_export`.
    """
    run, out = Path(run), Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder to export into")
    frozen = _load_run(run)
    size = (image_size, image_size) if image_size else _trained_size(run)
    return write_export(frozen, out, size)


def write_export(frozen: FrozenBackbone, out: Path, size: tuple[int, int]) -> ExportCheck:
    """Writes a backbone as safetensors, configuration and ONNX, and checks both.

    Steerable filters are expanded into plain convolutions, so that loading needs only torch, timm, numpy and
    safetensors. The ONNX model takes any number of raw images [B, C, height, width] and returns `view_features` [B, D]
    and `region_features` [B, N, D].

    Args:
        size: height and width of the raw images in pixels, for ONNX alone.
    Raises: RuntimeError if exported features differ by more than 1e-5 of the largest feature.
    """
    images = _typical_images(frozen.preprocess, *size)
    images[-1, :, size[0] // 2, size[1] // 2] = math.nan  # a flagged pixel, to be filled everywhere
    expected = frozen(images)

    out.mkdir(parents=True, exist_ok=True)
    backbone = frozen.backbone.fold()
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, out / WEIGHTS)
    config = {
        "backbone": catalog.backbone_config(backbone),
        "preprocess": frozen.preprocess.config(),
        "versions": {package: version(package) for package in ("ssl_lens", "torch", "timm", "numpy")},
    }
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    loaded = _load_export(out)
    write_onnx(loaded, images, out / ONNX)

    check = ExportCheck(_difference(loaded(images), expected), onnx_difference(out / ONNX, images, expected))
    if not all(difference <= TOLERANCE for difference in check if difference is not None):  # so NaN is refused
        raise RuntimeError(f"the export in {out} differs from its source by {check}, more than {TOLERANCE}")
    return check


def _load_run(run: Path) -> FrozenBackbone:
    backbone = _network_of_run(run)
    checkpoint = newest_good(run / "checkpoints")
    if checkpoint is None:
        raise InputError(f"{run} holds no intact checkpoint yet; let pretrain.py finish an epoch")
    teacher = load_file(checkpoint / "teacher.safetensors")
    weights = {key.removeprefix(PREFIX): value for key, value in teacher.items() if key.startswith(PREFIX)}
    load_into(backbone, weights, source=checkpoint / "teacher.safetensors")
    return FrozenBackbone(_preprocess_of_run(run), backbone)


def _network_of_run(run: Path, *, seed: int | None = None) -> Backbone:
    from ssl_lens.recipe import compose  # a run needs more packages than an export
    from ssl_lens.recipe.recipe import load_recipe

    _refuse_no_run(run)
    recipe = load_recipe(run / RECIPE)
    torch.manual_seed(recipe.seed if seed is None else seed)
    return compose.backbone(recipe, _preprocess_of_run(run).in_channels)


def _refuse_no_run(folder: Path) -> None:
    if not (folder / RECIPE).is_file():
        raise InputError(
            f"{folder} is neither a run (no {RECIPE}) nor an export (no {CONFIG}); "
            "give the folder that pretrain.py or `ssl-lens export` wrote"
        )


def _preprocess_of_run(run: Path) -> Preprocess:
    try:
        return Preprocess.from_config(json.loads((run / "preprocess.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{run}/preprocess.json cannot be used ({error!r}); the run is not whole, train it again"
        ) from None


def _load_export(folder: Path) -> FrozenBackbone:
    config = _read_config(folder)
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} cannot be read ({error}); export the run again") from None
    backbone = catalog.backbone_from_config(config["backbone"])
    load_into(backbone, weights, source=folder / WEIGHTS)
    return FrozenBackbone(Preprocess.from_config(config["preprocess"]), backbone)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config["backbone"]["architecture"], Preprocess.from_config(config["preprocess"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} is not an export's ({error!r}); export the run again") from None
    return config


def _trained_size(run: Path) -> tuple[int, int]:
    """Height and width in pixels of the raw images that the run was made on."""
    from ssl_lens.runs.folder import RunFolder

    height, width = json.loads(RunFolder(run).images.read_text(encoding="utf-8"))["shape"][1:]
    return height, width


def _typical_images(preprocess: Preprocess, height: int, width: int) -> Tensor:
    """Noise with the mean and scatter of the images that the preprocessing was fitted to."""
    shape = (CHECKED_IMAGES, preprocess.in_channels, height, width)
    stretched = preprocess.mean + preprocess.std * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return preprocess.stretch.inverse(stretched)


def write_onnx(frozen: FrozenBackbone, images: Tensor, path: Path) -> None:
    """Writes a folded backbone for any number of images of this size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        torch.onnx.export(
            frozen,
            (images,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=list(ONNX_OUTPUTS),
            external_data=False,
            verbose=False,
        )


def onnx_difference(path: Path, images: Tensor, expected: Features) -> float | None:
    """As `_difference`, at another batch size than was exported; None where onnxruntime is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    first, others = (session.run(None, {"images": part.numpy()}) for part in (images[:1], images[1:]))
    views, regions = (torch.from_numpy(np.concatenate(parts)) for parts in zip(first, others, strict=True))
    return _difference(Features(views, regions), expected)


def _difference(features: Features, expected: Features) -> float:
    """Largest difference, relative to the largest feature, of the two kinds of feature."""
    pairs = zip(features[:2], expected[:2], strict=True)
    return torch.stack([(ours - theirs).abs().max() / theirs.abs().max() for ours, theirs in pairs]).max().item()
