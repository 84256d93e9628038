"""Equivariant transformer network: an image is turned to a pose of its own before a CNN sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_lens.backbones.backbone import MapBackbone
from ssl_lens.backbones.options import Count, Counts, Family, Options
from ssl_lens.backbones.resnet import ResNet, ResNetOptions
from ssl_lens.errors import InputError

INNER_RADIUS = 0.1  # of the disc; log-polar coordinates have to end somewhere
LEAK = 10  # divisor below zero; a factor 0.1 would reach ONNX in float32
SHARPNESS = 1.0  # standard deviation over angles of what goes into the softmax
GRADIENT_FLOOR = 0.1  # resultant below which an angle's gradient no longer grows


class PosePredictor(nn.Module):
    """Logits over angles of a log-polar image, commuting with its cyclic shifts.

    Two convolutions, the maximum over radii and a convolution over angles. Padding is cyclic in angle.

    Shapes: [B, C, angles, radii] to [B, angles].
    Source: Tai et al. 2019, their EquivariantPosePredictor. Differs: where theirs strides over angles the next
    filters are dilated, so that every shift commutes and not only those by 4; no learnt offset of the angle, which the
    CNN behind would only undo.
    """

    def __init__(self, in_channels: int, width: int, kernel_size: int = 5) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size, stride=(1, 2), bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size, stride=(1, 2), dilation=(2, 1), bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv_angle = nn.Conv1d(width, 1, kernel_size, dilation=4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(_polar_conv(x, self.conv1.weight, dilation=1, stride=2))
        x = self.bn2(_polar_conv(torch.maximum(x, x / LEAK), self.conv2.weight, dilation=2, stride=2))
        x = torch.maximum(x, x / LEAK).amax(dim=3, keepdim=True)
        return _polar_conv(x, self.conv_angle.weight[..., None], dilation=4, stride=1)[:, 0, :, 0]


@dataclass(frozen=True)
class CanonicalETNOptions(Options):
    """Options of an equivariant transformer network.

    Attributes:
        width: channels of the ResNet's first stage.
        depths: basic blocks of each of its stages.
        strides: 2 for each of its stages that halves the map, 1 for one that keeps it; None: all but the first halve.
        stem_stride: 1 or 2 for a stem of a 3x3 convolution, 4 for one of 7x7 with stride 2 and a max pooling.
        pose_width: channels of the pose predictor.
        angles: rows of the log-polar picture, a multiple of 4; as many radii as make its cells square.

    Raises: InputError if angles is not a multiple of 4, or as `ResNetOptions`.
    """

    width: Count = 32
    depths: Counts = (1, 1, 1, 1)
    strides: tuple[Literal[1, 2], ...] | None = None
    stem_stride: Literal[1, 2, 4] = 2
    pose_width: Count = 32
    angles: Count = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.angles % 4:
            raise InputError(f"angles={self.angles} of the CanonicalETN is not a multiple of 4; use 64, for instance")
        self.resnet()

    def resnet(self) -> ResNetOptions:
        """The options of the ResNet behind."""
        return ResNetOptions(width=self.width, depths=self.depths, strides=self.strides, stem_stride=self.stem_stride)


class CanonicalETN(MapBackbone):
    """Equivariant transformer network for rotations: a pose from log-polar coordinates, then a ResNet.

    An image's log-polar picture shifts cyclically as the image turns, and so do the `PosePredictor`'s logits; the
    circular mean of their softmax is the pose. The image is turned back by it: the ResNet sees the same picture for
    every orientation up to interpolation. It sees the disc inscribed in the image, in a square as wide as the image's
    shorter side: corners leave the picture when an image turns. Regions and stage maps are those of the turned picture,
    not of the image.

    Only rotation is taken out. Scale would be as easy in log-polar coordinates, but it is the Einstein radius of a lens
    and has to be kept.

    Where the softmax has no preferred direction (a picture that equals its half turn) the pose hangs on noise, and its
    gradient is damped.

    Source: Tai, Bailis & Valiant 2019 and their code (predictor and resnet10 of width 32). Differs:
    the disc; logits scaled to one spread, since fresh ones are so flat that interpolation would turn their mean; a
    bilinear sampler with second derivatives; as in `PosePredictor`.
    """

    options_type = CanonicalETNOptions
    options: CanonicalETNOptions
    directions: Tensor
    polar: Tensor

    def __init__(self, in_channels: int, options: CanonicalETNOptions = CanonicalETNOptions()) -> None:
        """Builds the network with random weights."""
        angles = options.angles
        resnet = ResNet(in_channels, options.resnet())
        super().__init__(in_channels, resnet.embed_dim, resnet.reduction)
        self.options = options
        self.pose = PosePredictor(in_channels, options.pose_width)
        self.resnet = resnet
        angle = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
        radii = math.ceil(-math.log(INNER_RADIUS) / (2 * math.pi / angles)) + 1
        directions = torch.stack([angle.cos(), angle.sin()])  # [2, angles]: columns' direction x, rows' y
        radius = torch.linspace(math.log(INNER_RADIUS), 0, radii, dtype=torch.float64).exp()
        polar = directions[:, :, None] * radius  # [2, angles, radii] in the unit disc
        self.register_buffer("directions", directions, persistent=False)
        self.register_buffer("polar", polar, persistent=False)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        side = min(height, width)
        return super().map_size(side, side)

    def direction(self, images: Tensor) -> Tensor:
        """Cosine and sine [B, 2] of the image's orientation, an angle from x (columns) to y (rows)."""
        rim = (min(images.shape[2:]) - 1) / 2  # px
        points = (self.polar.double() * rim).flatten(1).expand(images.shape[0], -1, -1)
        logits = self._logits(_sample(images.double(), points).unflatten(2, self.polar.shape[1:]))
        logits = logits - logits.mean(dim=1, keepdim=True)
        spread = (logits.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()  # the ONNX exporter drops a summand of 1e-8
        return _unit((SHARPNESS * logits / spread).softmax(dim=1) @ self.directions.double().T)

    def _logits(self, polar_images: Tensor) -> Tensor:
        """The pose predictor in double precision: the noise of float32, of TF32 all the more, would turn pictures."""
        state = {  # copies, even of doubles: the update of the buffers must not touch what the backward pass needs
            name: t.to(torch.float64, copy=True) if t.is_floating_point() else t
            for name, t in self.pose.state_dict(keep_vars=True).items()
        }
        logits = torch.func.functional_call(self.pose, state, polar_images)
        if self.training:
            with torch.no_grad():
                for name, buffer in self.pose.named_buffers():
                    buffer.copy_(state[name])
        return logits

    def canonical(self, images: Tensor) -> Tensor:
        """The images [B, C, H, W] turned back to the pose, within their disc [B, C, side, side]; side = min(H, W)."""
        side = min(images.shape[2:])
        with torch.autocast(images.device.type, enabled=False):  # a rounded pose would turn the picture
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            cos, sin = self.direction(images)[:, :, None].unbind(1)
            axis = torch.arange(side, device=images.device, dtype=torch.float64) - (side - 1) / 2
            x, y = axis.repeat(side), axis.repeat_interleave(side)
            points = torch.stack([cos * x - sin * y, sin * x + cos * y], dim=1)
            disc = (x.square() + y.square() <= side**2 / 4).to(images.dtype)
            return (_sample(images, points) * disc).unflatten(2, (side, side))

    def stages(self, images: Tensor) -> list[Tensor]:
        self.check_images(images)
        return self.resnet.stages(self.canonical(images).to(images.dtype))


def _polar_conv(x: Tensor, weight: Tensor, dilation: int, stride: int) -> Tensor:
    """Cross-correlation of [B, C, angles, radii], cyclic and dilated in angle, zero-padded and strided in radius.

    As F.conv2d, but of matrix products, which ONNX runtimes have in double precision too.
    """
    centre, radii = weight.shape[2] // 2, x.shape[3]
    x = torch.cat([x.roll(dilation * (centre - i), dims=2) for i in range(weight.shape[2])], dim=1)
    x = F.pad(x, (weight.shape[3] // 2, weight.shape[3] // 2))
    rows = weight.transpose(1, 2).flatten(1, 2)  # [out, taps in angle * C, taps in radius]
    shifted = (x[..., j : j + radii : stride] for j in range(weight.shape[3]))
    products = [torch.einsum("ok,bkar->boar", rows[..., j], part) for j, part in enumerate(shifted)]
    return sum(products[1:], start=products[0])


def _unit(vector: Tensor) -> Tensor:
    """Vectors [B, 2] scaled to length 1, (1, 0) for a zero vector, with the gradient across them damped near zero."""
    length = vector.detach().norm(dim=1, keepdim=True)
    fallback = torch.eye(2, device=vector.device, dtype=vector.dtype)[:1]
    unit = torch.where(length > 0, vector.detach() / length.clamp(min=1e-30), fallback)
    across = torch.stack([-unit[:, 1], unit[:, 0]], dim=1)
    angle = (vector * across).sum(dim=1, keepdim=True) / length.clamp(min=GRADIENT_FLOOR)  # 0, but for its gradient
    return unit + (angle - angle.detach()) * across


def _sample(images: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [B, C, N] of images [B, C, H, W] at points [B, 2, N] (x, y), px from the centre.

    Points beyond the outermost pixels' centres take the nearest value there. As F.grid_sample, whose backward pass has
    no derivative on its own.
    """
    height, width = images.shape[2:]
    x = (points[:, 0] + (width - 1) / 2).clamp(0, width - 1)
    y = (points[:, 1] + (height - 1) / 2).clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right_part, lower_part = (x - left)[:, None].to(images.dtype), (y - top)[:, None].to(images.dtype)
    left, top = left.long(), top.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    pixels = images.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return pixels.gather(2, (row * width + column)[:, None].expand(-1, images.shape[1], -1))

    upper = torch.lerp(at(top, left), at(top, right), right_part.expand(-1, images.shape[1], -1))
    lower = torch.lerp(at(bottom, left), at(bottom, right), right_part.expand(-1, images.shape[1], -1))
    return torch.lerp(upper, lower, lower_part.expand(-1, images.shape[1], -1))


VARIANTS = {"canonical_etn": CanonicalETNOptions()}
FAMILY = Family(CanonicalETN, VARIANTS)
