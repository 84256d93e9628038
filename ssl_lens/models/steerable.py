"""Steerable stem: convolutions equivariant to C4, C8, D4 or D8. The only file that imports e2cnn."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import e2cnn.kernels.utils
import numpy as np
import torch
import torch.nn.functional as F
from e2cnn import gspaces
from e2cnn import nn as e2nn
from e2cnn.group import Representation
from e2cnn.kernels import irreps_basis
from torch import Tensor, nn

from ssl_lens.errors import InputError
from ssl_lens.models.stem import FoldedStem, Stem

GROUPS = ("C4", "C8", "D4", "D8")


class _NumPyOne:
    """`numpy` as e2cnn 0.2.3 knows it: `array(copy=False)` copies only where needed, an error since NumPy 2."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def array(value: Any, copy: bool = True) -> np.ndarray:
        return np.array(value) if copy else np.asarray(value)


def _hash_basis(self: irreps_basis.IrrepBasis) -> int:
    """Stands for the `__hash__` that call `ndarray.tostring`, which NumPy 2.3 removed."""
    return hash((self.in_irrep, self.out_irrep, self.mu.tobytes(), np.asarray(self.gamma).tobytes()))


def _patch_e2cnn() -> None:
    e2cnn.kernels.utils.np = _NumPyOne()
    for basis in (
        irreps_basis.R2FlipsSolution,
        irreps_basis.R2ContinuousRotationsSolution,
        irreps_basis.R2FlipsDiscreteRotationsSolution,
        irreps_basis.R2FlipsContinuousRotationsSolution,
    ):
        basis.__hash__ = _hash_basis


_patch_e2cnn()


class SteerableConv2d(nn.Module):
    """Convolution whose filter is a learnt combination of e2cnn's basis of equivariant filters.

    e2cnn's own R2Conv stores its expanded filter in evaluation mode: a teacher there never sees its updates, and the
    keys of the state dict depend on the mode. This one expands the filter at every call and holds tensors only, so it
    copies, pickles and differentiates twice. The basis travels in the state dict, for the weights mean nothing without
    it.

    Shapes: [B, in_fields * |in|, H, W] to [B, out_fields * |out|, H, W], zero padding.
    Source: Weiler & Cesa 2019, e2cnn 0.2.3 (basis and initialisation).
    """

    def __init__(
        self,
        space: gspaces.GeneralOnR2,
        in_representation: Representation,
        in_fields: int,
        out_representation: Representation,
        out_fields: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        in_type = e2nn.FieldType(space, [in_representation] * in_fields)
        out_type = e2nn.FieldType(space, [out_representation] * out_fields)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="indexing with dtype torch.uint8")
            conv = e2nn.R2Conv(in_type, out_type, kernel_size, padding=kernel_size // 2, bias=False)
        (block,) = conv.basisexpansion.children()  # one kind of field in and one out: one block, repeated
        self.in_fields = in_fields
        self.out_fields = out_fields
        self.kernel_size = kernel_size
        self.weights = nn.Parameter(conv.weights.detach().clone())
        self.register_buffer("basis", block.sampled_basis.clone())  # [basis, |out|, |in|, kernel_size ** 2]

    def filter(self) -> Tensor:
        """The expanded filter [out_fields * |out|, in_fields * |in|, kernel_size, kernel_size]."""
        size, out_size, in_size, _ = self.basis.shape
        with torch.autocast(self.weights.device.type, enabled=False):  # rounding the filter would break the symmetry
            weights = self.weights.view(self.out_fields, self.in_fields, size)
            filters = torch.einsum("boip,yxb->yoxip", self.basis, weights)
        return filters.reshape(self.out_fields * out_size, self.in_fields * in_size, self.kernel_size, self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter(), padding=self.kernel_size // 2)


class SteerableLayer(nn.Module):
    """Steerable convolution to regular fields, with one batch norm per field (statistics over the group as well)."""

    def __init__(self, conv: SteerableConv2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm3d(conv.out_fields)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).unflatten(1, (self.conv.out_fields, -1))).flatten(1, 2)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Filter and bias of the plain convolution that equals this layer in evaluation mode."""
        scale = self.norm.weight * torch.rsqrt(self.norm.running_var + self.norm.eps)
        bias = self.norm.bias - self.norm.running_mean * scale
        weight = self.conv.filter()
        order = weight.shape[0] // len(scale)
        return weight * scale.repeat_interleave(order)[:, None, None, None], bias.repeat_interleave(order)


class SteerableStem(Stem):
    """Stem equivariant to quarter or eighth turns (C4, C8), and to flips as well (D4, D8).

    Quarter turns and flips map the pixel grid to itself and are exact at any image size; eighth turns are as good as
    the sampling of the filters.

    Source: Weiler & Cesa 2019 (regular fields, inner batch norm, group pooling).
    """

    def __init__(
        self,
        in_channels: int,
        group: Literal["C4", "C8", "D4", "D8"] = "C8",
        fields: int = 8,
        depth: int = 2,
        kernel_size: int = 5,
        downsample: Literal[1, 2] = 1,
    ) -> None:
        """Builds the stem with random weights.

        Args:
            in_channels: channels of the images; each is a scalar field.
            group: rotations by 360° / 4 or / 8; D adds reflections.
            fields: regular fields of every layer, and channels of the output.
            depth: number of convolutions.
            kernel_size: odd side of the filters, px.
            downsample: 2 halves the map (antialiased) after the first layer.

        Raises: InputError for any other group, kernel size, depth or downsampling.
        """
        if group not in GROUPS:
            raise InputError(f"group={group!r} of the stem is not known; use one of {', '.join(GROUPS)}")
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size={kernel_size} of the stem is not symmetric; use an odd number from 3")
        if depth < 1:
            raise InputError(f"depth={depth} of the stem is too small; use 1 or more")
        order = int(group[1:])
        space = gspaces.Rot2dOnR2(order) if group[0] == "C" else gspaces.FlipRot2dOnR2(order)
        scalar, regular = space.trivial_repr, space.regular_repr
        inputs = [(scalar, in_channels)] + [(regular, fields)] * (depth - 1)
        layers = (SteerableLayer(SteerableConv2d(space, *given, regular, fields, kernel_size)) for given in inputs)
        super().__init__(in_channels, fields, regular.size, downsample, layers)
        self._config = {
            "in_channels": in_channels,
            "group": group,
            "fields": fields,
            "depth": depth,
            "kernel_size": kernel_size,
            "downsample": downsample,
        }

    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def fold(self) -> FoldedStem:
        config = self.config()
        del config["group"]
        folded = FoldedStem(group_order=self.group_order, **config).to(self.layers[0].conv.weights)
        for plain, layer in zip(folded.layers, self.layers, strict=True):
            weight, bias = layer.folded()
            plain.load_state_dict({"weight": weight, "bias": bias})
        return folded.eval()
