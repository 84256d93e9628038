"""What networks of tokens have in common: their patches, their norm, their maps and their first weights."""

from __future__ import annotations

from functools import partial

from timm.layers import trunc_normal_
from torch import Tensor, nn

from ssl_lens.backbones.layers import norms
from ssl_lens.errors import InputError

LayerNorm = partial(norms.LayerNorm, eps=1e-6)  # the references' eps; torch's default is 1e-5
STAGES = 4  # maps a network of one resolution gives for dense use


def check_patches(network: str, height: int, width: int, patch_size: int) -> None:
    """Raises InputError unless whole patches fill an image of this size in pixels."""
    if height % patch_size or width % patch_size or not height or not width:
        nearest = [max(patch_size, round(side / patch_size) * patch_size) for side in (height, width)]
        raise InputError(
            f"image size {height}x{width} px of the {network} is not a multiple of patch_size={patch_size}; "
            f"use {nearest[0]}x{nearest[1]} px or another patch_size"
        )


def check_width(embed_dim: int, num_heads: int) -> None:
    """Raises InputError unless the attention heads share the tokens' width evenly."""
    if embed_dim % num_heads:
        raise InputError(f"embed_dim={embed_dim} is not a multiple of num_heads={num_heads}; change either")


def stage_tokens(outputs: list[Tensor]) -> list[Tensor]:
    """The outputs of those blocks that end a quarter of the depth; of every block if there are fewer than four."""
    count = min(STAGES, len(outputs))
    return [outputs[len(outputs) * (i + 1) // count - 1] for i in range(count)]


def tokens_to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens [B, h * w, D] as a map [B, D, h, w]."""
    return tokens.transpose(1, 2).unflatten(2, size)


def initialize_linear(module: nn.Module) -> None:
    """Truncated normal weights of deviation 0.02 and no bias, for linear layers only."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
