"""Parts of networks whose maps are fields over a group of turns and flips, in torch alone.

A regular field has one channel for each element of its group: a turned image permutes them. The channels of a field lie
side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.layers.lens_frame import HARMONICS, direction_cosines
from ssl_lens.backbones.steerable.groups import Foldable, group_order

IMAGES_IN_CACHE = 8
FieldPooling: TypeAlias = Literal["max", "mean", "lens_frame"]


def field_conv(
    group: str,
    in_fields: int,
    out_fields: int,
    kernel_size: int,
    *,
    folded: bool,
    scalar_input: bool = False,
    padding: int | None = None,
    groups: int = 1,
    norm: bool = False,
    bias: bool = False,
) -> nn.Module:
    """Convolution from regular (or scalar) fields to regular fields: steerable, or the plain one that it folds into.

    Args:
        group: one of C4, C8, D4, D8.
        kernel_size: odd side of the filters, px.
        folded: the plain one; only the steerable one needs e2cnn.
        padding: zeros on each side; None keeps the size of the map.
        groups: parts of the fields that are kept apart, as in `nn.Conv2d`.
        norm: a batch norm behind it, one scale and offset per field.
        bias: an offset per field.
    """
    padding = kernel_size // 2 if padding is None else padding
    if folded:
        order = group_order(group)
        in_channels = in_fields if scalar_input else in_fields * order
        return nn.Conv2d(
            in_channels, out_fields * order, kernel_size, padding=padding, groups=groups, bias=norm or bias
        )
    from ssl_lens.backbones.steerable.convolution import SteerableConv2d, SteerableLayer

    conv = SteerableConv2d(
        group,
        in_fields,
        out_fields,
        kernel_size,
        scalar_input=scalar_input,
        padding=padding,
        groups=groups,
        bias=bias,
    )
    return SteerableLayer(conv) if norm else conv


def lift(layer: nn.Module, x: Tensor, *then: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What each of `then` makes of a layer's map behind a ReLU.

    In training on a CPU few images go through at a time: a whole batch of the widest map would leave the cache, and be
    allocated afresh in every step, both of which take longer than the arithmetic.
    """
    part_of_batch = layer.of_batch(x) if isinstance(layer, Foldable) else None
    if part_of_batch is None:
        whole = F.relu(layer(x))
        return [function(whole) for function in then]
    made = []
    for part in x.split(IMAGES_IN_CACHE):
        rectified = F.relu(part_of_batch(part))
        made.append([function(rectified) for function in then])
    return [torch.cat(parts) for parts in zip(*made, strict=True)]


@torch.no_grad()
def fold_into(plain: nn.Module, network: nn.Module) -> None:
    """Gives `plain`, the same network built folded, the present weights of `network`, and evaluation mode."""
    state = network.state_dict()
    convolutions = {name for name, module in plain.named_modules() if isinstance(module, nn.Conv2d)}
    for name, layer in network.named_modules():
        if not isinstance(layer, Foldable) or name not in convolutions:  # the latter are parts of a foldable layer
            continue
        state = {key: value for key, value in state.items() if not key.startswith(f"{name}.")}
        state |= {f"{name}.{key}": value for key, value in layer.folded().items()}
    plain.to(next(network.parameters())).load_state_dict(state, strict=True)
    plain.eval()


class GroupPool(nn.Module):
    """Maximum or mean over the elements of each regular field: [B, fields * order, H, W] to [B, fields, H, W].

    The result no longer changes, but for its position, when the image is turned. A mean is worth taking behind a
    nonlinearity only: before it, it would leave of each filter nothing but its average over all turns.
    """

    per_field = 1

    def __init__(self, order: int, kind: Literal["max", "mean"] = "max") -> None:
        super().__init__()
        self.order = order
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (-1, self.order))
        return x.amax(dim=2) if self.kind == "max" else x.mean(dim=2)


class LensFrame(nn.Module):
    """Orientations relative to the middle of the map: [B, fields * order, H, W] to [B, 3 * fields, H, W].

    Of a field's elements f(theta), each the answer to a structure turned by theta, a pixel in the direction phi from
    the middle keeps the means of f(theta) cos(k (theta - phi)), k = 0, 1, 2; the mean alone, by k = 0, is that of
    `GroupPool`. Of D groups, a turned element and its mirror image are averaged, so that mirrored images give mirrored
    maps. Equivariant as `GroupPool`: it tells tangential from radial structure, which a maximum does not.
    """

    per_field = HARMONICS

    def __init__(self, group: str) -> None:
        super().__init__()
        self.mirrored = group[0] == "D"
        self.turns = int(group[1:])

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (-1, 1 + self.mirrored, self.turns))
        if self.mirrored:  # the flip is about the y axis, which turns what lies along x by 180 degrees
            x = torch.stack([x[:, :, 0], x[:, :, 1].roll(self.turns // 2, dims=2)], dim=2)
        theta = torch.arange(self.turns, device=x.device) * (2 * math.pi / self.turns)
        angles = torch.arange(HARMONICS, device=x.device)[:, None] * theta
        fields = x.mean(dim=2)  # [B, fields, turns, H, W]
        height, width = x.shape[-2:]
        cosine, sine = (part.to(x) for part in direction_cosines(height, width, HARMONICS))
        along, across = (
            torch.einsum("bfthw,kt->bfkhw", fields, weights.to(x) / self.turns)
            for weights in (angles.cos(), angles.sin())
        )
        return (along * cosine + across * sine).flatten(1, 2)


def field_pool(group: str, kind: FieldPooling) -> GroupPool | LensFrame:
    """What makes maps of regular fields blind to turns, with `per_field` channels of each field.

    Args:
        group: one of C4, C8, D4, D8.
        kind: "max", "mean", or "lens_frame" for orientations relative to the middle of the map.
    """
    return LensFrame(group) if kind == "lens_frame" else GroupPool(group_order(group), kind)


class FieldNorm(nn.Module):
    """LayerNorm over all channels of each pixel with one scale and offset per regular field."""

    def __init__(self, fields: int, order: int) -> None:
        super().__init__()
        self.order = order
        self.weight = nn.Parameter(torch.ones(fields))
        self.bias = nn.Parameter(torch.zeros(fields))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (per_field[:, None].expand(-1, self.order).flatten() for per_field in (self.weight, self.bias))
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)


class CircularMask(nn.Module):
    """Fades what a turn would move out of the image: all beyond the circle inscribed in it.

    Source: e2cnn's MaskModule, its margin in percent of the radius and its edge of 2 px. Differs: any size; in an image
    that is not square the circle touches the longer sides.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        rows, columns = (
            torch.arange(side, dtype=torch.float32, device=images.device) - (side - 1) / 2 for side in (height, width)
        )
        radius = (min(height, width) - 1) / 2 * (1 - self.margin / 100)
        beyond = (rows[:, None].square() + columns.square() - radius**2).clamp(min=0)
        return images * torch.exp(-beyond / 4).to(images.dtype)


class AntialiasedDownsample(nn.Module):
    """Blurs and halves a map [B, C, H, W] to [B, C, ceil(H / 2), ceil(W / 2)], commuting exactly with turns and flips.

    A strided filter is centred on the map only where (side + 2 * padding - taps) is even, so even sides take four
    binomial taps and odd sides five.

    Source: Zhang 2019 (anti-aliased pooling). Differs: taps by the parity of the map; on a CPU a product with a matrix
    from either side, where the gradient of a depthwise convolution with a stride takes many times as long.
    """

    even_taps: Tensor
    odd_taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("even_taps", torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8, persistent=False)
        self.register_buffer("odd_taps", torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.by_matrices(x) if x.device.type == "cpu" else self.by_convolution(x)

    def by_matrices(self, x: Tensor) -> Tensor:
        rows, columns = (self._halving(side).to(x) for side in x.shape[2:])
        return rows @ (x @ columns.T)

    def by_convolution(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        rows, columns = self._taps(height), self._taps(width)
        kernel = (rows[:, None] * columns).to(x.dtype).expand(channels, 1, -1, -1)
        padding = (len(rows) - 1) // 2, (len(columns) - 1) // 2
        return F.conv2d(x, kernel, stride=2, padding=padding, groups=channels)

    def _taps(self, side: int) -> Tensor:
        return self.odd_taps if side % 2 else self.even_taps

    def _halving(self, side: int) -> Tensor:
        """The matrix [ceil(side / 2), side] that does to the pixels of a row what the taps do."""
        taps = self._taps(side)
        before = (len(taps) - 1) // 2
        offsets = torch.arange(side) - 2 * torch.arange((side + 1) // 2)[:, None] + before
        inside = (offsets >= 0) & (offsets < len(taps))
        return torch.where(inside, taps[offsets.clamp(0, len(taps) - 1)], 0.0)
