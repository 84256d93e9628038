"""Vision transformer with a class token on timm's parts, at any multiple of its patch size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath, PatchEmbed, trunc_normal_
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, MapBackbone, SizeRule
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.products import Mlp
from ssl_lens.backbones.layers.residual import add_path
from ssl_lens.backbones.layers.tokens import (
    LayerNorm,
    check_patches,
    check_width,
    initialize_linear,
    stage_tokens,
    tokens_to_map,
)
from ssl_lens.backbones.options import Count, Family, Options, Rate, Ratio


class Attention(nn.Module):
    """Attention of all tokens to all; parameters are named as timm's."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C] to the same shape."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(query, key, value))


class Block(nn.Module):
    """An attention and an MLP, each behind a norm and a residual path; parameters are named as timm's."""

    def __init__(self, dim: int, attention: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = attention
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., C], in whichever shape the attention takes, to the same shape."""
        x = add_path(x, self.attn(self.norm1(x)), self.drop_path1)
        return add_path(x, self.mlp(x, self.norm2), self.drop_path2)


@dataclass(frozen=True)
class ViTOptions(Options):
    """Options of a vision transformer; the defaults are ViT-S/16.

    Attributes:
        embed_dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        patch_size: side of a patch, px.
        image_size: side of the square images whose position embedding is learned, px; other sizes interpolate it.
        mlp_ratio: hidden over outer width of the MLPs.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.

    Raises: InputError if image_size is not a multiple of patch_size, or embed_dim not of num_heads, or as `Options`.
    """

    embed_dim: Count = 384
    depth: Count = 12
    num_heads: Count = 6
    patch_size: Count = 16
    image_size: Count = 224
    mlp_ratio: Ratio = 4.0
    drop_path: Rate = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches("ViT", self.image_size, self.image_size, self.patch_size)
        check_width(self.embed_dim, self.num_heads)


class ViT(MapBackbone):
    """Vision transformer: patches and a class token attend to each other at one resolution.

    The view is the class token and the regions are the patch tokens, both after the final LayerNorm. The position
    embedding is learned for `image_size` and interpolated to any other grid. Parameters are named as in timm's
    VisionTransformer, so its state dict loads (without the head).

    Source: Dosovitskiy et al. 2021; the defaults are ViT-S/16 as in DINO (Caron et al. 2021), with its initialisation.
    Differs: the position embedding is interpolated to the grid itself and antialiased, as in timm; DINO's code gives
    `interpolate` a scale of (side + 0.1) / 14 instead, which moves the samples by a fraction of a patch.
    """

    options_type = ViTOptions
    options: ViTOptions

    def __init__(self, in_channels: int, options: ViTOptions = ViTOptions()) -> None:
        """Builds the network with random weights."""
        super().__init__(in_channels, options.embed_dim, options.patch_size)
        self.options = options
        self.patch_size = options.patch_size
        self.grid = options.image_size // options.patch_size
        self.patch_embed = PatchEmbed(None, options.patch_size, in_channels, options.embed_dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, options.embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid**2, options.embed_dim))
        rates = torch.linspace(0, options.drop_path, options.depth, device="cpu").tolist()
        self.blocks = Blocks(
            Block(options.embed_dim, Attention(options.embed_dim, options.num_heads), options.mlp_ratio, rate)
            for rate in rates
        )
        self.norm = LayerNorm(options.embed_dim)
        self.apply(initialize_linear)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)

    @property
    def accepted_sizes(self) -> str:
        return "any" if self.patch_size == 1 else f"multiples of {self.patch_size} px"

    @property
    def size_rule(self) -> SizeRule:
        return SizeRule(multiple=self.patch_size)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        check_patches("ViT", height, width, self.patch_size)
        return super().map_size(height, width)

    def forward(self, images: Tensor) -> Features:
        tokens = self.norm(self._block_tokens(images)[-1])
        return Features(view=tokens[:, 0], regions=tokens[:, 1:])

    def stages(self, images: Tensor) -> list[Tensor]:
        """Patch tokens after each quarter of the depth; all maps have one resolution."""
        *earlier, last = stage_tokens(self._block_tokens(images))
        size = self.map_size(images.shape[2], images.shape[3])
        return [tokens_to_map(tokens[:, 1:], size) for tokens in (*earlier, self.norm(last))]

    def last_blocks(self, images: Tensor, count: int) -> Tensor:
        """Class tokens of the last `count` blocks [B, count * D], each normed: the features of DINO's linear probe."""
        return torch.cat([self.norm(tokens[:, 0]) for tokens in self._block_tokens(images)[-count:]], dim=1)

    def _block_tokens(self, images: Tensor) -> list[Tensor]:
        """The class and patch tokens [B, 1 + N, D] after every block."""
        self.check_images(images)
        patches = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        x = x + self._positions(self.map_size(images.shape[2], images.shape[3]))
        outputs = []
        for block in self.blocks:
            x = self.blocks.run(block, x)
            outputs.append(x)
        return outputs

    def _positions(self, size: tuple[int, int]) -> Tensor:
        """The position embedding [1, 1 + h * w, D] of a grid of this size."""
        if size == (self.grid, self.grid):
            return self.pos_embed
        learned = tokens_to_map(self.pos_embed[:, 1:], (self.grid, self.grid))
        if learned.dtype in (torch.float16, torch.bfloat16):  # antialiasing knows only the wider types everywhere
            learned = learned.float()
        resized = F.interpolate(learned, size=size, mode="bicubic", antialias=True, align_corners=False)
        resized = resized.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)
        return torch.cat((self.pos_embed[:, :1], resized), dim=1)


VARIANTS = {"vit_small": ViTOptions()}
FAMILY = Family(ViT, VARIANTS)
