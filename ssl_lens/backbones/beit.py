"""BEiT on timm's parts: a vision transformer with relative positions, for the one image size it is built for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed, trunc_normal_
from timm.models import beit as timm_beit
from torch import Tensor, nn

from ssl_lens.backbones.backbone import Features, MapBackbone, SizeRule
from ssl_lens.backbones.layers.attention import attend
from ssl_lens.backbones.layers.blocks import Blocks
from ssl_lens.backbones.layers.tokens import (
    LayerNorm,
    check_patches,
    check_width,
    initialize_linear,
    stage_tokens,
    tokens_to_map,
)
from ssl_lens.backbones.options import Count, Family, Options, Rate, Ratio
from ssl_lens.errors import InputError


class Attention(timm_beit.Attention):
    """timm's attention with a relative position bias, exportable to ONNX and differentiable twice."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None) -> Tensor:
        """Tokens [B, N, C] to the same shape."""
        assert shared_rel_pos_bias is None, "every block has its own bias"
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))  # type: ignore[arg-type]  # there are biases
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(2, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(attend(query, key, value, self._get_rel_pos_bias()))


@dataclass(frozen=True)
class BEiTOptions(Options):
    """Options of a BEiT; the defaults are BEiT-B/16.

    Attributes:
        embed_dim: width of the tokens.
        depth: number of blocks.
        num_heads: attention heads of each block.
        patch_size: side of a patch, px.
        image_size: side of the images, or (height, width), px: the only size the network takes.
        mlp_ratio: hidden over outer width of the MLPs.
        layer_scale: first value of the learned factors on the residual paths.
        drop_path: drop rate of the last block's residual paths, rising linearly from 0.

    Raises: InputError if image_size is not a multiple of patch_size, or embed_dim not of num_heads, or as `Options`.
    """

    embed_dim: Count = 768
    depth: Count = 12
    num_heads: Count = 12
    patch_size: Count = 16
    image_size: Count | tuple[Count, Count] = 224
    mlp_ratio: Ratio = 4.0
    layer_scale: float = 0.1
    drop_path: Rate = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches("BEiT", *self.size, self.patch_size)
        check_width(self.embed_dim, self.num_heads)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class BEiT(MapBackbone):
    """BEiT: a transformer whose attention adds a learned bias per offset in the grid, and layer scale.

    The view is the LayerNorm of the patch tokens' mean, as the authors classify; the regions are the patch tokens after
    the same LayerNorm, so that their mean is not the view. The biases belong to one grid: other image sizes are
    refused. Parameters are named as in timm's Beit, so its state dict loads (without the head).

    Source: Bao et al. 2022; the defaults are BEiT-B/16 as fine-tuned, in timm's form. Differs: any one image size.
    """

    options_type = BEiTOptions
    options: BEiTOptions

    def __init__(self, in_channels: int, options: BEiTOptions = BEiTOptions()) -> None:
        """Builds the network with random weights."""
        super().__init__(in_channels, options.embed_dim, options.patch_size)
        self.options = options
        self.image_size = options.size
        height, width = options.size
        self.grid = height // options.patch_size, width // options.patch_size
        self.patch_embed = PatchEmbed(None, options.patch_size, in_channels, options.embed_dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, options.embed_dim))
        self.blocks = Blocks()
        for rate in torch.linspace(0, options.drop_path, options.depth, device="cpu").tolist():
            block = timm_beit.Block(
                options.embed_dim,
                options.num_heads,
                mlp_ratio=options.mlp_ratio,
                drop_path=rate,
                init_values=options.layer_scale,
                norm_layer=LayerNorm,  # type: ignore[arg-type]  # a partial of one
            )
            block.attn = Attention(options.embed_dim, options.num_heads, qkv_bias=True, window_size=self.grid)
            self.blocks.append(block)
        self.fc_norm = LayerNorm(options.embed_dim)
        self._initialize()

    @property
    def accepted_sizes(self) -> str:
        return f"{self.image_size[0]}x{self.image_size[1]} px, as built"

    @property
    def size_rule(self) -> SizeRule:
        return SizeRule(self.options.patch_size, self.image_size)

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        if (height, width) != self.image_size:
            raise InputError(
                f"image size {height}x{width} px is refused: this BEiT was built for {self.image_size[0]}x"
                f"{self.image_size[1]} px and takes no other size; build it for yours with image_size"
            )
        return self.grid

    def forward(self, images: Tensor) -> Features:
        patches = self._block_tokens(images)[-1][:, 1:]
        return Features(view=self.fc_norm(patches.mean(dim=1)), regions=self.fc_norm(patches))

    def stages(self, images: Tensor) -> list[Tensor]:
        """Patch tokens after each quarter of the depth; all maps have one resolution."""
        *earlier, last = stage_tokens(self._block_tokens(images))
        return [tokens_to_map(tokens[:, 1:], self.grid) for tokens in (*earlier, self.fc_norm(last))]

    def _block_tokens(self, images: Tensor) -> list[Tensor]:
        """The class and patch tokens [B, 1 + N, D] after every block."""
        self.check_images(images)
        patches = self.patch_embed(images)
        x = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        outputs = []
        for block in self.blocks:
            x = self.blocks.run(block, x)
            outputs.append(x)
        return outputs

    @torch.no_grad()
    def _initialize(self) -> None:
        self.apply(initialize_linear)
        trunc_normal_(self.cls_token, std=0.02)
        for i, block in enumerate(self.blocks):  # deeper blocks add less at first
            for layer in (block.get_submodule("attn.proj"), block.get_submodule("mlp.fc2")):
                layer.weight /= (2.0 * (i + 1)) ** 0.5


VARIANTS = {"beit_base": BEiTOptions()}
FAMILY = Family(BEiT, VARIANTS)
