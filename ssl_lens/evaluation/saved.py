"""A fine-tuned network on disk: its backbone as an export, its head beside it."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.evaluation.finetune import Predictor, predictor
from ssl_lens.representation.export import write_export
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone
from ssl_lens.runs.checkpoint import load_into

HEAD, OUTPUTS = "head.safetensors", "outputs.json"


class BestNetwork:
    """Of the networks offered, the one trained on the most images, among these that with the lowest validation loss.

    Without a validation part the first one counts: results on the test part must not choose.
    """

    def __init__(self) -> None:
        self.network: Predictor | None = None
        self.outputs: dict[str, Any] = {}
        self._rank = (0, math.inf)

    def offer(self, network: Predictor, outputs: dict[str, Any], *, images: int, validation_loss: float | None) -> None:
        """`outputs` (JSON-able) says what the network's outputs mean."""
        rank = (-images, math.inf if validation_loss is None else validation_loss)
        if rank < self._rank:
            self.network, self.outputs, self._rank = network, outputs, rank


def save_network(best: BestNetwork, preprocess: Preprocess, folder: Path, size: tuple[int, int]) -> None:
    """Writes the backbone as `ssl-lens export` does, and its head with what its outputs mean.

    Args:
        size: height and width of the raw images in pixels.
    """
    assert best.network is not None, "nothing was trained"
    network = copy.deepcopy(best.network).cpu()
    write_export(FrozenBackbone(copy.deepcopy(preprocess).cpu(), network.backbone, network.pooling), folder, size)
    save_file({name: value.contiguous() for name, value in network.head.state_dict().items()}, folder / HEAD)
    content = {"pooling": network.pooling, "image_size": list(size), **best.outputs}
    (folder / OUTPUTS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_network(folder: Path | str) -> tuple[Preprocess, Predictor, dict[str, Any]]:
    """What `save_network` wrote, on the CPU in evaluation mode: the network takes preprocessed images.

    Returns: preprocessing, network, and what its outputs mean: `classes` (outputs are their logits), or `targets` with
        `mean` and `std` (value = mean + std * output).
    Raises: InputError if the folder is no such thing.
    """
    folder = Path(folder)
    frozen = load_backbone(folder)
    if not (folder / OUTPUTS).is_file():
        raise InputError(f"{folder} holds a backbone without a head; give a folder that eval/finetune.py --save wrote")
    outputs = json.loads((folder / OUTPUTS).read_text(encoding="utf-8"))
    with torch.no_grad():
        example = frozen.preprocess(torch.zeros(1, frozen.backbone.in_channels, *outputs["image_size"]))
    num_outputs = len(outputs.get("classes") or outputs["targets"])
    network = predictor(frozen.backbone, num_outputs, outputs["pooling"], example)
    load_into(network.head, load_file(folder / HEAD), source=folder / HEAD)
    return frozen.preprocess, network.eval().requires_grad_(False), outputs
