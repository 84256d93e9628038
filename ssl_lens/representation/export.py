"""A run becomes a frozen backbone on disk, as safetensors, configuration and ONNX, all three checked."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.backbones import catalog
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.representation.description import ALIGNMENT, CONFIG, WEIGHTS, raw_size
from ssl_lens.representation.frozen import FrozenBackbone, Representation, load_backbone
from ssl_lens.representation.network_file import write_weights
from ssl_lens.representation.pooling_names import Pooling

ONNX = "backbone.onnx"
HEAD, OUTPUTS = "head.safetensors", "outputs.json"  # next to the backbone of a predictor
TOLERANCE = 1e-5  # largest difference of exported and own features, relative to the largest feature
CHECKED_IMAGES = 4


class ExportCheck(NamedTuple):
    """Largest difference from the source's features, relative to the largest feature; None: not checked."""

    weights: float
    onnx: float | None


def export(
    run: Path | str, out: Path | str, *, image_size: int | None = None, pooling: Pooling | None = None
) -> ExportCheck:
    """Exports the backbone of a run, or an export once more, as `write_export` does.

    Args:
        image_size: side of the raw images in pixels, for ONNX alone; None for that of the run.
        pooling: what the export gives as `features`; None for what `load_backbone` would.

    Raises: InputError as `load_backbone`; InputError or RuntimeError as `write_export`.
    """
    frozen = load_backbone(run, pooling=pooling)
    size = (image_size, image_size) if image_size else raw_size(run)
    return write_export(frozen, Path(out), size)


def write_export(frozen: FrozenBackbone, out: Path, size: tuple[int, int]) -> ExportCheck:
    """Writes a frozen backbone as safetensors, configuration and ONNX, and checks both.

    Steerable filters are expanded into plain convolutions, so that loading needs only torch, timm, numpy and
    safetensors. The ONNX model takes any number of raw images [B, C, height, width] and returns `features` [B, F],
    `view` [B, D] and `regions` [B, N, D].

    Args:
        out: a folder; of what it holds already only the export before is replaced, once this one has passed its check.
        size: height and width of the raw images in pixels, for ONNX alone.

    Raises: InputError if `out` is a file or cannot be written; RuntimeError if exported features differ by more than
        1e-5 of the largest feature.
    """
    with replaced_export(out) as made:
        return write_files(frozen, made, size)


@contextlib.contextmanager
def replaced_export(out: Path) -> Iterator[Path]:
    """A hidden folder for the files of an export, which replace those in `out` at the end.

    Without its configuration a folder is not an export: it is removed first and comes last, so that an export is
    whole or absent whatever stops the process. Other files in `out` stay.

    Raises: InputError if `out` is a file or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder to export into")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".making-") as temporary:
            made = Path(temporary)
            yield made
            for name in (CONFIG, WEIGHTS, ALIGNMENT, ONNX, HEAD, OUTPUTS):
                (out / name).unlink(missing_ok=True)
            for file in sorted(made.iterdir(), key=lambda file: file.name == CONFIG):
                file.replace(out / file.name)
    except OSError as error:
        raise InputError(f"cannot export into {out}: {error.strerror or error}; give a folder with room") from error
    finally:
        with contextlib.suppress(OSError):  # stays unless it is empty, after a failure
            out.rmdir()


def write_files(frozen: FrozenBackbone, folder: Path, size: tuple[int, int]) -> ExportCheck:
    """The files of `write_export`, checked."""
    images = _typical_images(frozen.preprocess, *size)
    images[-1, :, size[0] // 2, size[1] // 2] = math.nan  # a flagged pixel, to be filled everywhere
    expected = frozen(images)

    write_network(frozen, folder, size)
    loaded = load_backbone(folder)
    write_onnx(loaded, images, folder / ONNX)

    check = ExportCheck(_difference(loaded(images), expected), onnx_difference(folder / ONNX, images, expected))
    if not all(difference <= TOLERANCE for difference in check if difference is not None):  # so NaN is refused
        raise RuntimeError(f"the export differs from its source by {check}, more than {TOLERANCE}; it was not written")
    return check


def write_network(frozen: FrozenBackbone, folder: Path, size: tuple[int, int]) -> None:
    """The files of an export that a backbone is loaded from, weights and configuration, without ONNX and unchecked.

    Args:
        size: height and width of the raw images in pixels.
    """
    backbone = frozen.backbone.fold()
    write_weights(backbone.state_dict(), folder / WEIGHTS)
    if frozen.alignment is not None:
        write_weights(frozen.alignment.state_dict(), folder / ALIGNMENT)
    config = {
        "backbone": catalog.backbone_config(backbone),
        "preprocess": frozen.preprocess.config(),
        "pooling": frozen.pooling,
        "aligned": frozen.alignment is not None,
        "image_size": list(size),
        "versions": {package: version(package) for package in ("ssl_lens", "torch", "timm", "numpy")},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _typical_images(preprocess: Preprocess, height: int, width: int) -> Tensor:
    """Noise with the mean and scatter of the images that the preprocessing was fitted to."""
    shape = (CHECKED_IMAGES, preprocess.in_channels, height, width)
    stretched = preprocess.mean + preprocess.std * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return preprocess.stretch.inverse(stretched)


class _Graph(nn.Module):
    """What the ONNX model computes: a frozen backbone of tensors alone."""

    def __init__(self, frozen: FrozenBackbone) -> None:
        super().__init__()
        self.frozen = frozen

    def forward(self, images: Tensor) -> Representation:
        return self.frozen.represent(self.frozen.preprocess(images))


def write_onnx(frozen: FrozenBackbone, images: Tensor, path: Path) -> None:
    """Writes a folded backbone for any number of images of this size; its outputs are called as `Representation`'s."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        program = torch.onnx.export(
            _Graph(frozen),
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=[f"ssl_lens_{name}" for name in Representation._fields],
            verbose=False,
        )
    assert program is not None, "of the dynamo exporter"
    graph = program.model.graph
    for node in graph:  # operators name their own values, such as `view`, too
        for value in node.outputs:
            if value.name in Representation._fields:
                value.name = f"{value.name}_inner"
    for value, name in zip(graph.outputs, Representation._fields, strict=True):
        value.name = name
    program.save(path, external_data=False)


def onnx_difference(path: Path, images: Tensor, expected: Representation) -> float | None:
    """As `_difference`, at another batch size than was exported; None where onnxruntime is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = list(Representation._fields)
    first, others = (session.run(names, {"images": part.numpy()}) for part in (images[:1], images[1:]))
    outputs = (torch.from_numpy(np.concatenate(parts)) for parts in zip(first, others, strict=True))
    return _difference(Representation(*outputs), expected)


def _difference(given: Representation, expected: Representation) -> float:
    """Largest difference, relative to the largest feature, of the three kinds of feature."""
    pairs = zip(given, expected, strict=True)
    return torch.stack([(ours - theirs).abs().max() / theirs.abs().max() for ours, theirs in pairs]).max().item()
