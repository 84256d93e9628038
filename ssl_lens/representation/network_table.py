"""What there is to choose from: one measured row per network, and the options of each."""

from __future__ import annotations

import inspect
import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from ssl_lens.backbones import catalog
from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.options import Options, field_names
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.representation.export import onnx_difference, write_onnx
from ssl_lens.representation.frozen import FrozenBackbone

SIZES = (64, 128)  # px
HEADER = ("name", "parameters", *(f"GFLOPs {size} px" for size in SIZES), "sizes", "90°", "45°", "export")
WIDTHS = (17, 11, 12, 13, 22, 7, 7, 12)  # characters of the columns
IMAGES, BLOBS = 8, 6


class Row(NamedTuple):
    """A network with one input channel and fresh weights.

    Attributes:
        parameters: with its own head for two classes.
        gflops: at 64 and 128 px, an addition and a multiplication counted as one, as the papers do; None: no such size.
        turned_90, turned_45: mean change of the view feature when a 64 px image turns, in units of the mean distance
            between the features of different images; 1 means that a turned lens is another lens.
        exported: whether it can be, to ONNX.
        difference: of the exported network at 64 px, relative to the largest feature; None: not checked.
    """

    name: str
    parameters: int
    gflops: tuple[float | None, ...]
    sizes: str
    turned_90: float
    turned_45: float
    exported: bool
    difference: float | None

    def __str__(self) -> str:
        flops = ["-" if value is None else f"{value:.3f}" for value in self.gflops]
        turned = [f"{value:.0e}" if value < 1e-3 else f"{value:.2f}" for value in (self.turned_90, self.turned_45)]
        exported = "yes" if self.exported else "no"
        difference = "" if self.difference is None else f" ({self.difference:.0e})"
        return _line((self.name, f"{self.parameters:,}", *flops, self.sizes, *turned, exported + difference))


def table(names: Sequence[str]) -> Iterator[str]:
    """The lines of a Markdown table, each as soon as it has been measured, and of what can be chosen of each network.

    Raises: InputError if no network has one of the names.
    """
    for name in names:
        catalog.options_of(name)
    yield _line(HEADER)
    yield _line(["-" * width for width in WIDTHS])
    for name in names:
        yield str(measure(name))
    yield from option_lines(names)


def option_lines(names: Sequence[str]) -> Iterator[str]:
    """Markdown: for the networks of each family their options, with the values that they have and what they mean.

    Raises: InputError if no network has one of the names.
    """
    families: dict[type[Options], list[str]] = {}
    for name in names:
        families.setdefault(catalog.options_of(name), []).append(name)
    for options, members in families.items():
        yield from ("", f"### {', '.join(members)}", "")
        meanings = _meanings(options)
        for field in field_names(options):
            yield f"- `{field}` ({_values(field, members)}): {meanings[field]}"


def _meanings(options: type[Options]) -> dict[str, str]:
    """What the documentation of the class says of each option."""
    attributes = re.split(r"^Attributes:$|^\w+: ", inspect.getdoc(options) or "", flags=re.MULTILINE)[1]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text).strip().replace("None", "null") for name, text in entries}


def _values(field: str, names: Sequence[str]) -> str:
    """The value of an option in the first network, and in the others where they differ."""
    first, *others = (json.dumps(catalog.published_options(name).config()[field]) for name in names)
    pairs = zip(names[1:], others, strict=True)
    return "; ".join([first, *(f"{value} in {name}" for name, value in pairs if value != first)])


@torch.no_grad()
def measure(name: str) -> Row:
    """Builds a network by its name with seed 0 and measures it, on the CPU.

    Raises: InputError if no network has this name.
    """
    network = _build(name, SIZES[0])
    _settle(network)
    sums = [_gflops(name, size) for size in SIZES]
    parameters = sum(p.numel() for module in (network, network.head(2)) for p in module.parameters())
    return Row(name, parameters, tuple(sums), network.accepted_sizes, *_turned(network), *_exported(network))


def _build(name: str, image_size: int) -> MapBackbone:
    torch.manual_seed(0)
    return catalog.build_backbone(name, {}, in_channels=1, image_size=image_size)


def _settle(network: MapBackbone) -> None:
    """Gives batch norms the statistics of blobs on a noisy sky; evaluation mode."""
    images = torch.cat([blobs(SIZES[0], angle) for angle in (0.0, 45.0, 90.0, 135.0)])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    update_bn([images + 0.3 * noise], network)
    network.eval()


def _gflops(name: str, size: int) -> float | None:
    network = _build(name, size).eval().fold()
    image = torch.zeros(1, 1, size, size)
    try:
        network.map_size(size, size)
    except InputError:
        return None
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(image)
    return counter.get_total_flops() / 2e9


def _turned(network: MapBackbone) -> tuple[float, float]:
    still, by_90, by_45 = (network(blobs(SIZES[0], angle)).view.double() for angle in (0.0, 90.0, 45.0))
    between = nn.functional.pdist(still).mean()
    change_90, change_45 = (float((turned - still).norm(dim=1).mean() / between) for turned in (by_90, by_45))
    return change_90, change_45


def _exported(network: MapBackbone) -> tuple[bool, float | None]:
    frozen = FrozenBackbone(Preprocess.plain(1), network.fold())
    images = blobs(SIZES[0], 0.0)[:4]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.onnx"
        try:
            write_onnx(frozen, images, path)
        except torch.onnx.errors.OnnxExporterError:
            return False, None
        return True, onnx_difference(path, images, frozen(images))


def blobs(size: int, angle: float) -> Tensor:
    """Images [IMAGES, 1, size, size] of Gaussian blobs around the centre, turned by `angle` degrees before sampling."""
    generator = torch.Generator().manual_seed(0)
    radius, phase, sigma, flux = torch.rand(4, IMAGES, BLOBS, 1, 1, generator=generator, dtype=torch.float64)
    phase = 2 * math.pi * phase + math.radians(angle)
    radius, sigma = (0.05 + 0.3 * radius) * size, (0.02 + 0.04 * sigma) * size
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    squared = (axis - radius * phase.cos()).square() + (-axis[:, None] - radius * phase.sin()).square()
    return ((0.5 + flux) * (-squared / (2 * sigma.square())).exp()).sum(dim=1, keepdim=True).float()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True)) + " |"
