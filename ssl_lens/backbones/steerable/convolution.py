"""Convolutions equivariant to C4, C8, D4 or D8. The only file that imports e2cnn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from ssl_lens.backbones.steerable.groups import Expandable, Foldable, group_order
from ssl_lens.backbones.steerable.moments import patch_moments
from ssl_lens.errors import InputError

with warnings.catch_warnings():  # its sources hold invalid escape sequences, reported whenever they are compiled
    warnings.simplefilter("ignore")
    import e2cnn.group.group
    import e2cnn.group.representation
    import e2cnn.kernels.utils
    import e2cnn.nn.field_type
    from e2cnn import gspaces
    from e2cnn import nn as e2nn
    from e2cnn.kernels import irreps_basis
    from e2cnn.nn import init as e2cnn_init


class _NumPyOne:
    """`numpy` as e2cnn 0.2.3 knows it: `array(copy=False)` copies only where needed, an error since NumPy 2."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def array(value: Any, copy: bool = True) -> np.ndarray:
        return np.array(value) if copy else np.asarray(value)


class _SparseMatrices:
    """`scipy.sparse` as e2cnn 0.2.3 knows it: `block_diag` gives matrices, from SciPy 1.18 on only if given some."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sparse, name)

    @staticmethod
    def block_diag(blocks: Sequence[Any], format: str | None = None) -> sparse.spmatrix:
        return sparse.block_diag([sparse.coo_matrix(block) for block in blocks], format=format)


def _hash_basis(self: irreps_basis.IrrepBasis) -> int:
    """Stands for the `__hash__` that call `ndarray.tostring`, which NumPy 2.3 removed."""
    return hash((self.in_irrep, self.out_irrep, self.mu.tobytes(), np.asarray(self.gamma).tobytes()))


def _patch_e2cnn() -> None:
    e2cnn.kernels.utils.np = _NumPyOne()
    for module in (e2cnn.group.group, e2cnn.group.representation, e2cnn.nn.field_type):
        module.sparse = _SparseMatrices()
    for basis in (
        irreps_basis.R2FlipsSolution,
        irreps_basis.R2ContinuousRotationsSolution,
        irreps_basis.R2FlipsDiscreteRotationsSolution,
        irreps_basis.R2FlipsContinuousRotationsSolution,
    ):
        basis.__hash__ = _hash_basis


_patch_e2cnn()


class SteerableConv2d(Expandable):
    """Convolution to regular fields whose filter is a learnt combination of a basis of equivariant filters.

    e2cnn's own R2Conv stores its expanded filter in evaluation mode: a teacher there never sees its updates, and the
    keys of the state dict depend on the mode. This one expands the filter at every call, or once for those within
    `expanded_once`, and holds tensors only, so it copies, pickles and differentiates twice. The basis travels in the
    state dict, for the weights mean nothing without it.

    Shapes: [B, in_fields * order, H, W], or [B, in_fields, H, W] of scalars, to [B, out_fields * order, H', W'].
    Source: Weiler & Cesa 2019, e2cnn 0.2.3 (basis, frequencies and generalised He initialisation). Differs: a 1x1
    filter, which e2cnn cannot sample, combines the group's permutations; its output's variance is its input's.
    """

    basis: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        group: str,
        in_fields: int,
        out_fields: int,
        kernel_size: int,
        *,
        scalar_input: bool = False,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        """Builds the convolution with random weights; arguments as in `group_fields.field_conv`.

        Raises: InputError for an unknown group or an even kernel.
        """
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InputError(f"kernel_size={kernel_size} is not symmetric; use an odd number")
        self.in_fields = in_fields
        self.out_fields = out_fields
        self.kernel_size = kernel_size
        self.padding = kernel_size // 2 if padding is None else padding
        self.groups = groups
        self.order = group_order(group)
        space = _space(group)
        if kernel_size == 1:
            assert not scalar_input, "a 1x1 filter from scalars to regular fields knows no directions"
            basis = _permutations(space)
            weights = torch.randn(out_fields * in_fields // groups * self.order)
            weights *= (in_fields // groups * self.order) ** -0.5
        else:
            basis, weights = _e2cnn_filters(space, in_fields // groups, out_fields, kernel_size, scalar_input)
        self.weights = nn.Parameter(weights)
        self.register_buffer("basis", basis)  # [basis, |out|, |in|, kernel_size ** 2]
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_fields)) if bias else None)

    def expand(self) -> Tensor:
        """The filter [out_fields * |out|, in_fields / groups * |in|, kernel_size, kernel_size]."""
        size, out_size, in_size, _ = self.basis.shape
        in_fields = self.in_fields // self.groups
        with torch.autocast(self.weights.device.type, enabled=False):  # rounding the filter would break the symmetry
            weights = self.weights.view(self.out_fields, in_fields, size)
            filters = torch.einsum("boip,yxb->yoxip", self.basis, weights)
        return filters.reshape(self.out_fields * out_size, in_fields * in_size, self.kernel_size, self.kernel_size)

    def channel_bias(self) -> Tensor | None:
        """The offset of each channel; None without a bias."""
        return None if self.bias is None else self.bias[:, None].expand(-1, self.order).flatten()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filter(), self.channel_bias(), padding=self.padding, groups=self.groups)

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        bias = self.channel_bias()
        return {"weight": self.filter()} | ({} if bias is None else {"bias": bias})


class SteerableLayer(Foldable):
    """Steerable convolution with one batch norm per field (statistics over the group as well).

    On a CPU `of_batch` may compute what the norm would; on a GPU, where processes may share statistics, the norm does.
    """

    conv: SteerableConv2d
    norm: nn.BatchNorm3d

    def __init__(self, conv: SteerableConv2d) -> None:
        super().__init__()
        assert conv.bias is None, "the norm has the offset"
        self.conv = conv
        self.norm = nn.BatchNorm3d(conv.out_fields)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).unflatten(1, (self.conv.out_fields, -1))).flatten(1, 2)

    def of_batch(self, x: Tensor) -> Callable[[Tensor], Tensor] | None:
        """The plain convolution that this layer is for the batch `x`, its statistics found from those of the patches.

        So the map, larger than all else, need not be there at once for its mean and variance to be taken. Worth it on a
        CPU, where patches have few numbers next to the output's channels.
        """
        conv, norm = self.conv, self.norm
        if not norm.training or x.device.type != "cpu" or torch.compiler.is_compiling() or conv.groups > 1:
            return None
        if x.shape[1] * conv.kernel_size**2 > conv.out_fields * conv.order:
            return None
        filters = conv.filter()
        mean, covariance = patch_moments(x, conv.kernel_size, conv.padding)
        matrix = filters.flatten(1).double()
        means = (matrix @ mean).view(conv.out_fields, -1)  # of the channels of each field
        variances = ((matrix @ covariance) * matrix).sum(dim=1).view_as(means)
        mean = means.mean(dim=1)
        variance = (variances + (means - mean[:, None]).square()).mean(dim=1)
        self._remember(mean, variance, x)
        weight, bias = self._normalised(filters, mean.to(filters), variance.to(filters))
        return lambda part: F.conv2d(part, weight, bias, padding=conv.padding)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, x: Tensor) -> None:
        """Moves the running statistics, as the norm does when it sees the map."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        lost = self.conv.kernel_size - 1 - 2 * self.conv.padding
        count = len(x) * (x.shape[2] - lost) * (x.shape[3] - lost) * self.conv.order
        norm.running_mean.lerp_(mean.to(norm.running_mean), norm.momentum)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var), norm.momentum)
        norm.num_batches_tracked += 1

    def _normalised(self, filters: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Filters and offsets with the norm of these statistics in them."""
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        bias = self.norm.bias - mean * scale
        order = self.conv.order
        return filters * scale.repeat_interleave(order)[:, None, None, None], bias.repeat_interleave(order)

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        assert self.norm.running_var is not None
        assert self.norm.running_mean is not None
        weight, bias = self._normalised(self.conv.filter(), self.norm.running_mean, self.norm.running_var)
        return {"weight": weight, "bias": bias}


def _space(group: str) -> gspaces.GeneralOnR2:
    rotations = int(group[1:])
    return gspaces.Rot2dOnR2(rotations) if group[0] == "C" else gspaces.FlipRot2dOnR2(rotations)


def _e2cnn_filters(
    space: gspaces.GeneralOnR2, in_fields: int, out_fields: int, kernel_size: int, scalar_input: bool
) -> tuple[Tensor, Tensor]:
    """e2cnn's basis [basis, |out|, |in|, kernel_size ** 2] and initial weights [out_fields * in_fields * basis]."""
    given = space.trivial_repr if scalar_input else space.regular_repr
    in_type, out_type = (e2nn.FieldType(space, [representation]) for representation in (given, space.regular_repr))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="indexing with dtype torch.uint8")
        conv = e2nn.R2Conv(in_type, out_type, kernel_size, bias=False, initialize=False)
    (block,) = conv.basisexpansion.children()  # of one field to one: all pairs of fields share it
    basis = block.sampled_basis.clone()
    # e2cnn would find the same numbers for all pairs one by one, in seconds for a wide layer
    scale = e2cnn_init._generalized_he_init_variances(conv.basisexpansion) * in_fields**-0.5
    return basis, (torch.randn(out_fields, in_fields, len(scale)) * scale).flatten()


def _permutations(space: gspaces.GeneralOnR2) -> Tensor:
    """Basis [order, order, order, 1] of the maps of a regular field to another that commute with the group.

    The group acts on a regular field from the left, so these are its actions from the right.
    """
    group = space.fibergroup
    position = {element: i for i, element in enumerate(group.elements)}
    basis = torch.zeros(len(position), len(position), len(position), 1)
    for i, shift in enumerate(group.elements):
        for element, j in position.items():
            basis[i, position[group.combine(element, shift)], j] = 1
    return basis
