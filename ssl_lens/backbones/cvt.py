"""Convolutional vision transformer with a class token in its last stage: CvT-13 and CvT-21, at any image size."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, QuickGELU, trunc_normal_
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, MapBackbone
from ssl_lens.backbones.cvt_lens import ChannelNorm, StagedOptions
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.stages import check_heads
from ssl_lens.backbones.layers.tokens import initialize_linear
from ssl_lens.backbones.options import Count, Counts, Family, Rate, Ratio


class ConvEmbed(nn.Module):
    """A strided convolution and a channel norm: [B, C, H, W] to [B, dim, ceil(H / stride), ceil(W / stride)].

    Sizes that are not a multiple of the stride are padded with zeros at the bottom and right.
    """

    def __init__(self, in_channels: int, dim: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        padding = (kernel_size - stride + 1) // 2  # centred on the stride's square: the authors' 2 for 7x7, stride 4
        self.proj = nn.Conv2d(in_channels, dim, kernel_size, stride, padding=padding)
        self.norm = ChannelNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = (-side % self.stride for side in x.shape[2:])
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        return self.norm(self.proj(x))


class TokenAttention(nn.Module):
    """Attention of tokens [B, T, C]: a class token, if there is one, then the pixels of a map, row by row.

    Pixels become queries, keys and values by a depthwise convolution (keys and values with stride 2); the class token
    joins them before the linear layers.
    """

    def __init__(self, dim: int, num_heads: int, class_token: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.class_token = class_token
        self.conv_proj_q = _depthwise_convolution(dim, stride=1)
        self.conv_proj_k = _depthwise_convolution(dim, stride=2)
        self.conv_proj_v = _depthwise_convolution(dim, stride=2)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_k = nn.Linear(dim, dim)
        self.proj_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        query = self._heads(x, size, self.conv_proj_q, self.proj_q)
        key = self._heads(x, size, self.conv_proj_k, self.proj_k)
        value = self._heads(x, size, self.conv_proj_v, self.proj_v)
        query = query * self.num_heads**-0.5  # the scores are scaled by the whole width, not by that of a head
        return self.proj(attend(query, key, value))

    def _heads(self, x: Tensor, size: tuple[int, int], convolution: nn.Module, linear: nn.Module) -> Tensor:
        pixels = x[:, 1:] if self.class_token else x
        tokens = convolution(pixels.mT.unflatten(2, size)).flatten(2).mT
        if self.class_token:
            tokens = torch.cat((x[:, :1], tokens), dim=1)
        return linear(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class TokenBlock(nn.Module):
    """Attention and MLP, each behind a norm and a residual path."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, drop_path: float, class_token: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = TokenAttention(dim, num_heads, class_token)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=QuickGELU)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenStage(nn.Module):
    """A smaller map of the images or of the stage before, then blocks; the last stage puts a class token in front."""

    def __init__(self, embed: ConvEmbed, blocks: Sequence[TokenBlock], class_token: int) -> None:
        """`class_token` is the width of the class token, 0 for none."""
        super().__init__()
        self.patch_embed = embed
        self.cls_token = nn.Parameter(torch.zeros(1, 1, class_token)) if class_token else None
        self.blocks = Blocks(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens [B, T, C] of a map [B, C', H, W], and the size of the new map."""
        x = self.patch_embed(x)
        size = x.shape[2], x.shape[3]
        x = x.flatten(2).mT
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        for block in self.blocks:
            x = self.blocks.run(block, x, size)
        return x, size


@dataclass(frozen=True)
class CvTOptions(StagedOptions):
    """Options of a CvT; the defaults are CvT-13, and CvT-21 has depths (1, 4, 16).

    Attributes:
        dims: width of each stage; the last one is the network's `embed_dim`.
        kernel_sizes: odd side of each stage's first convolution, px of its input.
        strides: reduction of each stage; the first is that of the images.
        num_heads: attention heads of each stage.
        depths: blocks of each stage.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0 over the last stage.
        stages: keep the first few; the last that is kept has the class token. None for all.

    Raises: InputError as `StagedOptions`, or if a stage's width is not a multiple of its heads.
    """

    dims: Counts = (64, 192, 384)
    kernel_sizes: Counts = (7, 3, 3)
    strides: Counts = (4, 2, 2)
    num_heads: Counts = (1, 3, 6)
    depths: Counts = (1, 2, 10)
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1
    stages: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.dims, self.num_heads)


class CvT(MapBackbone):
    """Convolutional vision transformer; the defaults are CvT-13, and CvT-21 has depths (1, 4, 16).

    The view is the class token after the final LayerNorm, the regions are the other tokens of the last stage after it.

    Source: Wu et al. 2021 and microsoft/CvT: QuickGELU, attention scaled by the whole width, a class token in the last
    stage only, drop path in the last stage only. `from_published` renames the authors' weights. Differs: an image side
    that is not a multiple of 4 px is padded with zeros (the authors' stem drops up to 2 px of it).
    """

    options_type = CvTOptions
    options: CvTOptions

    def __init__(self, in_channels: int, options: CvTOptions = CvTOptions()) -> None:
        """Builds the network with random weights."""
        stages = options.kept()
        super().__init__(in_channels, stages[-1].dim, math.prod(stage.stride for stage in stages))
        self.options = options
        self.layers = nn.ModuleList()
        before = in_channels
        for stage in stages:
            last = stage is stages[-1]
            embed = ConvEmbed(before, stage.dim, stage.kernel_size, stage.stride)
            rates = torch.linspace(0, options.drop_path if last else 0.0, stage.depth, device="cpu").tolist()
            blocks = [
                TokenBlock(stage.dim, stage.num_heads, options.mlp_ratio, rate, class_token=last) for rate in rates
            ]
            self.layers.append(TokenStage(embed, blocks, class_token=stage.dim if last else 0))
            before = stage.dim
        self.norm = nn.LayerNorm(self.embed_dim)
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Features:
        tokens = self._tokens(images)[1]
        return Features(view=tokens[:, 0], regions=tokens[:, 1:])

    def stages(self, images: Tensor) -> list[Tensor]:
        maps, tokens = self._tokens(images)
        size = self.map_size(images.shape[2], images.shape[3])
        return [*maps, tokens[:, 1:].mT.unflatten(2, size)]

    def head(self, num_outputs: int) -> nn.Module:
        head = nn.Linear(self.embed_dim, num_outputs)
        trunc_normal_(head.weight, std=0.02)
        return head

    @classmethod
    def from_published(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the authors' weights (microsoft/CvT, "CvT-13-224x224-IN-1k.pth" and its like): stage0 is layers.0 here.

        Their classifier is left out.
        """
        return {
            re.sub(r"^stage(\d+)\.", r"layers.\1.", name): tensor
            for name, tensor in super().from_published(state).items()
        }

    def _tokens(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps of all stages but the last, and the last one's tokens [B, 1 + N, D] after the final norm."""
        self.check_images(images)
        *earlier, last = self.layers
        maps = []
        x = images
        for stage in earlier:
            tokens, size = stage(x)
            x = tokens.mT.unflatten(2, size)
            maps.append(x)
        return maps, self.norm(last(x)[0])


def _depthwise_convolution(channels: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
    return nn.Sequential(OrderedDict(conv=convolution, bn=nn.BatchNorm2d(channels)))


def _initialize(module: nn.Module) -> None:
    initialize_linear(module)
    if isinstance(module, TokenStage) and module.cls_token is not None:
        trunc_normal_(module.cls_token, std=0.02)


VARIANTS = {"cvt_13": CvTOptions(), "cvt_21": CvTOptions(depths=(1, 4, 16))}
FAMILY = Family(CvT, VARIANTS)
