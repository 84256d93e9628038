"""What networks of several stages have in common: widths, heads and drop rates, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ssl_lens.errors import InputError


def doubling_dims(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> list[int]:
    """Width of each stage, twice that of the one before.

    Raises: InputError unless depths and num_heads have as many values, one or more, and the heads share the widths.
    """
    if not depths or len(num_heads) != len(depths):
        raise InputError(f"depths={list(depths)}, num_heads={list(num_heads)} do not fit; give both for each stage")
    dims = [embed_dim * 2**i for i in range(len(depths))]
    check_heads(dims, num_heads)
    return dims


def check_heads(dims: Sequence[int], num_heads: Sequence[int]) -> None:
    """Raises InputError unless the heads of each stage share its width evenly."""
    if any(dim % heads for dim, heads in zip(dims, num_heads, strict=True)):
        raise InputError(f"stage dims={list(dims)} are not multiples of num_heads={list(num_heads)}; change either")


def drop_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Drop rate of each block's residual paths, stage by stage, rising linearly from 0 to `last` over all blocks."""
    rates = torch.linspace(0, last, sum(depths), device="cpu")  # numbers, even where the network is built without data
    return [stage.tolist() for stage in rates.split(list(depths))]
