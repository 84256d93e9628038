"""A backbone with a head: what it says of images, and how both are saved with what the outputs mean."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.weights import check_numbers, read_tensors, tensor_shapes
from ssl_lens.data.pack.packed_images import Images
from ssl_lens.data.pixels.preprocess import Preprocess
from ssl_lens.errors import InputError
from ssl_lens.files import read_json
from ssl_lens.representation.export import HEAD, OUTPUTS, ExportCheck, replaced_export, write_files
from ssl_lens.representation.frozen import FrozenBackbone, load_backbone
from ssl_lens.representation.inputs import BATCH_SIZE, device_of, raw_batches
from ssl_lens.representation.network_file import Shapes, at_most, write_weights
from ssl_lens.representation.pooling import pooled
from ssl_lens.representation.pooling_names import Pooling
from ssl_lens.runs.checkpoint import load_into


@dataclass(frozen=True)
class Classes:
    """Outputs that are the logits of classes, in this order."""

    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def values(self, outputs: Tensor) -> np.ndarray:
        """Probabilities float64 [B, C] of outputs [B, C]; rows sum to 1."""
        return outputs.double().softmax(1).cpu().numpy()


@dataclass(frozen=True)
class Targets:
    """Outputs that are standardised numbers: value = mean + std * output.

    Attributes:
        targets: names of the numbers, with units, such as `axion_mass_ev`.
        mean, std: in the units of the targets, of logarithms their decades.
        log: whether it is the decimal logarithm of the target that mean + std * output gives.
    """

    targets: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    log: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def values(self, outputs: Tensor) -> np.ndarray:
        """The numbers float64 [B, T] of outputs [B, T], in the units of the targets, logarithms undone."""
        values = np.array(self.mean) + np.array(self.std) * outputs.double().cpu().numpy()
        return np.where(self.log, 10.0 ** np.where(self.log, values, 0.0), values)


Outputs: TypeAlias = Classes | Targets


class NormalisedLinear(nn.Sequential):
    """A linear head on layer-normalised features."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(nn.LayerNorm(num_features), nn.Linear(num_features, num_outputs))


class Predictor(nn.Module):
    """A backbone and what turns its pooled features into outputs: preprocessed images [B, C, h, w] -> [B, O].

    Args:
        head: one of three kinds, if it is to be saved: an `nn.Linear`, a `NormalisedLinear`, or what
            `backbone.head(O)` gave.
        quarter_turns: whether features are the mean of those of the image and of its three quarter turns.
    """

    def __init__(
        self, backbone: MapBackbone, head: nn.Module, pooling: Pooling, *, quarter_turns: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.head, self.pooling, self.quarter_turns = backbone, head, pooling, quarter_turns

    def forward(self, images: Tensor) -> Tensor:
        return self.outputs(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [B, F] of preprocessed images [B, C, h, w]."""
        if not self.quarter_turns:
            return pooled(self.backbone, images, self.pooling)
        return mean_over_quarter_turns(lambda turned: pooled(self.backbone, turned, self.pooling), images)

    def outputs(self, features: Tensor) -> Tensor:
        """Outputs [B, O] of pooled features [B, F], computed in the type of the head."""
        return self.head(features.to(next(self.head.parameters()).dtype))

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def fresh_predictor(backbone: MapBackbone, num_outputs: int, pooling: Pooling, example: Tensor) -> Predictor:
    """A copy of the backbone under a fresh head: on the view feature the one of its authors, else a normalised linear.

    Args:
        example: one preprocessed image [1, C, h, w], to count the features.

    Raises: InputError if the backbone cannot take such an image.
    """
    backbone = copy.deepcopy(backbone).requires_grad_(True)
    example = example.to(next(chain(backbone.parameters(), backbone.buffers())).device)
    backbone.check_images(example)
    if pooling == "view":
        return Predictor(backbone, backbone.head(num_outputs), pooling)
    with torch.no_grad():
        num_features = pooled(backbone.eval(), example, pooling).shape[1]
    return Predictor(backbone, NormalisedLinear(num_features, num_outputs), pooling)


def mean_over_quarter_turns(function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The mean of what a function gives of square images [B, C, s, s] and of their three quarter turns."""
    return torch.stack([function(images.rot90(turn, (-2, -1))) for turn in range(4)]).mean(dim=0)


def linear_head(
    weight: np.ndarray, bias: np.ndarray, *, mean: np.ndarray | float = 0.0, scale: np.ndarray | float = 1.0
) -> nn.Linear:
    """A linear probe of standardised features, (x - mean) / scale, as one linear layer on the features x.

        weight @ ((x - mean) / scale) + bias  =  (weight / scale) @ x + (bias - (weight / scale) @ mean)

    Folded and kept in float64, so that large features lose nothing.

    Shapes: weight [O, F], bias [O], mean and scale [F] or numbers; returns F -> O.
    """
    folded = np.asarray(weight, np.float64) / scale
    offset = np.asarray(bias, np.float64) - folded @ np.broadcast_to(np.asarray(mean, np.float64), folded.shape[1])
    head = nn.Linear(folded.shape[1], len(folded), dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(folded))
        head.bias.copy_(torch.from_numpy(offset))
    return head


@dataclass(frozen=True)
class SavedPredictor:
    """What `save_predictor` wrote.

    Attributes:
        network: takes what `preprocess` makes of raw images; in evaluation mode, without gradients.
        outputs: what its outputs mean.
        num_features: length of the pooled features that its head takes.

    Raises: InputError in `predict` if the images have another size than those it was trained on, and the features thus
        another length.
    """

    preprocess: Preprocess
    network: Predictor
    outputs: Outputs
    num_features: int

    def to(self, device: torch.device) -> SavedPredictor:
        """The same on another device."""
        return replace(self, preprocess=self.preprocess.to(device), network=self.network.to(device))

    @torch.inference_mode()
    def predict(self, images: Images, *, batch_size: int = BATCH_SIZE, progress: str | None = None) -> np.ndarray:
        """Probabilities or numbers float64 [N, O] of raw images [N, C, H, W], in order.

        Args:
            progress: what a progress bar on a terminal is called; none is shown if None.
        """
        batches = raw_batches(images, batch_size, progress=progress)
        return np.concatenate([self.outputs.values(self._raw_outputs(batch)) for batch in batches])

    def _raw_outputs(self, images: Tensor) -> Tensor:
        prepared = self.preprocess(images.to(device_of(self.preprocess)))
        features = self.network.features(prepared)
        if features.shape[1] != self.num_features:  # smaller maps have fewer rings
            raise InputError(
                f"images of {images.shape[2]}x{images.shape[3]} px give {features.shape[1]} features, but the head was "
                f"trained on {self.num_features}; give images of the size that it was trained on"
            )
        return self.network.outputs(features)


def save_predictor(
    folder: Path, preprocess: Preprocess, network: Predictor, outputs: Outputs, *, image_size: tuple[int, int]
) -> ExportCheck:
    """Writes the backbone as `ssl-lens export` does, and its head with what its outputs mean; whole or not at all.

    Args:
        network: stays as it is.
        image_size: height and width of the raw images in pixels, for ONNX alone.

    Raises: InputError or RuntimeError as `export.write_export`.
    """
    network = copy.deepcopy(network).cpu()
    frozen = FrozenBackbone(copy.deepcopy(preprocess).cpu(), network.backbone, network.pooling)
    with replaced_export(folder) as made:
        check = write_files(frozen, made, image_size)
        write_weights(network.head.state_dict(), made / HEAD)
        content = {"head": _kind(network.head), "quarter_turns": network.quarter_turns, **asdict(outputs)}
        (made / OUTPUTS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return check


def load_predictor(folder: Path | str) -> SavedPredictor:
    """What `save_predictor` wrote, on the CPU.

    Raises: InputError if the folder is nothing of the kind.
    """
    folder = Path(folder)
    frozen = load_backbone(folder)
    if not os.path.lexists(folder / OUTPUTS):
        raise InputError(
            f"{folder} holds a backbone without a head; give one that fine-tuning or an evaluation wrote, by "
            "save=FOLDER"
        )
    head, outputs, num_features, quarter_turns = _read_head(folder, frozen.backbone)
    network = Predictor(frozen.backbone, head, frozen.pooling, quarter_turns=quarter_turns)
    return SavedPredictor(frozen.preprocess, network.eval().requires_grad_(False), outputs, num_features)


def _read_head(folder: Path, backbone: MapBackbone) -> tuple[nn.Module, Outputs, int, bool]:
    """The head next to a backbone, what its outputs mean, how many features it takes, and whether of quarter turns."""
    content, shapes, source = read_json(folder / OUTPUTS), tensor_shapes(folder / HEAD), folder / HEAD
    try:
        outputs, quarter_turns = _outputs(content), content["quarter_turns"]
        if type(quarter_turns) is not bool:
            raise ValueError("quarter_turns is neither true nor false")
        with torch.device("meta"), at_most(shapes, source):  # shapes alone, no memory
            small, num_features = _head(content["head"], shapes, backbone, len(outputs))
        if {name: tuple(value.shape) for name, value in small.state_dict().items()} != shapes:
            raise InputError(f"{source} holds the weights of another head; save the network again")
        head = _head(content["head"], shapes, backbone, len(outputs))[0]
    except InputError:
        raise
    except Exception as error:  # whatever values of a wrong type may cause
        raise InputError(f"{folder / OUTPUTS} cannot be used ({error!r}); save the network again") from None
    weights = read_tensors(source)
    if all(value.dtype == torch.float64 for value in weights.values()):  # probes are kept in it
        head = head.double()
    check_numbers(head.state_dict(), weights, source)
    load_into(head, weights, source=source)
    return head, outputs, num_features, quarter_turns


def _kind(head: nn.Module) -> str:
    return {nn.Linear: "linear", NormalisedLinear: "normalised_linear"}.get(type(head), "architecture")


def _head(kind: Any, shapes: Shapes, backbone: MapBackbone, num_outputs: int) -> tuple[nn.Module, int]:
    """A fresh head of its kind, for the number of features that its weights have; and that number."""
    match kind:
        case "linear":
            num_features = shapes["weight"][1]
            return nn.Linear(num_features, num_outputs), num_features
        case "normalised_linear":
            num_features = shapes["1.weight"][1]
            return NormalisedLinear(num_features, num_outputs), num_features
        case "architecture":
            return backbone.head(num_outputs), backbone.embed_dim
        case _:
            raise ValueError(f"head {kind!r}")


def _outputs(content: Mapping[str, Any]) -> Outputs:
    if "classes" in content:
        return Classes(_texts(content["classes"]))
    columns = [content[column] for column in ("targets", "mean", "std", "log")]
    if len({len(column) for column in columns}) != 1:
        raise ValueError("targets, mean, std and log differ in length")
    targets, mean, std, log = columns
    if not all(type(number) in (int, float) and math.isfinite(number) for number in (*mean, *std)):
        raise ValueError("mean or std has what is not a finite number")
    if not all(type(flag) is bool for flag in log):
        raise ValueError("log has what is neither true nor false")
    return Targets(_texts(targets), tuple(mean), tuple(std), tuple(log))


def _texts(names: Any) -> tuple[str, ...]:
    """Names of outputs, which become columns of a table."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("classes or targets are not a list of names")
    if len(set(names)) != len(names):
        raise ValueError("two classes or targets have one name")
    return tuple(names)
