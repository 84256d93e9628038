"""Attention within groups of a map: rolled, padded, distant, in rows, and what is kept for backward."""

import pytest
import torch
from kept import kept_bytes
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from ssl_lens.backbones.layers.token_groups import GroupAttention, Groups, attend_in_groups

CUTS = {  # of a map of 3 x 5 tokens
    "even": Groups((2, 3), (2, 2)),
    "shifted": Groups((2, 3), (2, 2), shift=(1, 2)),
    "distant": Groups((2, 3), (2, 2), distant=True),
    "rows": Groups((1, 5), (3, 1)),
}


@pytest.fixture(params=CUTS)
def groups(request: pytest.FixtureRequest) -> Groups:
    return CUTS[request.param]


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 12, bias=bias).double()


def a_map(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_()


def test_cut_and_join_are_inverse(groups: Groups) -> None:
    x = torch.randn(2, *groups.padded, 12)
    parts = groups.cut(x, parts=3, heads=2)
    assert parts.shape == (3, 2, groups.count[0] * groups.count[1], 2, groups.size[0] * groups.size[1], 2)
    assert torch.equal(groups.join(parts), x)
    assert torch.equal(groups.cut(x, 1, 1)[0, ..., 0, :, 6:8], parts[1, :, :, 1])  # parts outermost, then heads


def test_attention_is_that_of_gathered_tokens(groups: Groups) -> None:
    """The same layer on groups that were gathered first, with heads split by hand."""
    x, qkv = a_map(), layer()
    bias = torch.randn(groups.count[0] * groups.count[1], 2, *2 * (groups.size[0] * groups.size[1],)).double()
    query, key, value = qkv(groups.gather(x)).unflatten(3, (3, 2, 2)).permute(3, 0, 1, 4, 2, 5)
    attended = ((query @ key.mT / 2**0.5 + bias).softmax(dim=-1) @ value).transpose(2, 3).flatten(3)
    expected = groups.scatter(attended, 3, 5)
    torch.testing.assert_close(attend_in_groups(x, groups, qkv, 2, bias), expected, atol=1e-14, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(attend_in_groups(x, groups, qkv, 2, bias), expected, atol=1e-14, rtol=0)


def test_numerical_derivatives(groups: Groups) -> None:
    x, qkv = a_map(), layer()
    bias = torch.randn(2, *2 * (groups.size[0] * groups.size[1],), dtype=torch.float64).requires_grad_()

    def attention(x, weight, of_qkv, bias):
        copy = nn.Linear(4, 12).double()
        del copy.weight, copy.bias
        copy.weight, copy.bias = weight, of_qkv
        return attend_in_groups(x, groups, copy, 2, bias)

    inputs = (x[:1, :, :, :], qkv.weight, qkv.bias, bias)
    assert gradcheck(attention, inputs, fast_mode=True)
    assert gradgradcheck(attention, inputs, fast_mode=True)


@pytest.mark.parametrize("bf16", [False, True])
def test_in_half_precision_the_map_alone_is_kept(bf16: bool) -> None:
    torch.manual_seed(0)
    attention, groups = GroupAttention(16, 2), Groups((4, 4), (2, 2))
    x = torch.randn(3, 8, 8, 16).to(torch.bfloat16 if bf16 else torch.float32).requires_grad_()
    bias = torch.randn(2, 16, 16, requires_grad=True)
    besides = (x, bias, *attention.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        kept = kept_bytes(lambda: attention(x, groups, bias), besides=besides)
    cast = 2 * (16 * (3 * 16 + 3 + 16) + bias.numel()) if bf16 else 0  # weights, and the bias
    before_proj, queries_keys_values = x.nbytes, 0 if bf16 else 3 * x.nbytes
    assert sum(kept.values()) == cast + before_proj + queries_keys_values


def test_recomputing_in_half_precision_changes_no_gradient_by_more_than_its_rounding() -> None:
    torch.manual_seed(0)
    attention, groups = GroupAttention(32, 2), Groups((4, 4), (2, 2), shift=(2, 2))
    x, bias = torch.randn(4, 8, 8, 32), torch.randn(2, 16, 16)
    gradients = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = attention(x, groups, bias)
        gradients.append(torch.autograd.grad(out.float().square().mean(), list(attention.parameters())))
    for wide, half in zip(*gradients, strict=True):
        assert half.dtype == torch.float32
        assert (half - wide).norm() < 0.03 * wide.norm() + 1e-6
