"""Attention by its formula: values, two derivatives, biases of any shape, and what is kept."""

import pytest
import torch
from kept import kept_bytes
from torch.autograd import gradcheck, gradgradcheck

from ssl_lens.backbones.layers.attention import attend, attend_per_head, fused_attention

BIASES = [None, (4, 5), (2, 1, 5), (2, 4, 5), (3, 2, 4, 5), (3, 1, 1, 5)]


def parts(groups: bool, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[torch.Tensor]:
    """Query, key and value of 2 images, 3 groups, 2 heads; 4 queries, 5 keys; 6 channels, values of 7."""
    generator = torch.Generator().manual_seed(seed)
    lead = (2, 3, 2) if groups else (2, 2)
    return [
        torch.randn(*lead, *shape, dtype=dtype, generator=generator).requires_grad_()
        for shape in ((4, 6), (5, 6), (5, 7))
    ]


def bias_of(shape: tuple[int, ...] | None) -> torch.Tensor | None:
    return None if shape is None else torch.randn(shape, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("shape", BIASES)
def test_values_and_derivatives_are_those_of_the_formula(shape):
    query, key, value = parts(groups=True)
    bias = bias_of(shape)

    def formula(query, key, value, bias):
        scores = query @ key.mT / 6**0.5
        return (scores if bias is None else scores + bias).softmax(dim=-1) @ value

    inputs = [part for part in (query, key, value, bias) if part is not None]
    ours, plain = attend_per_head(query, key, value, bias), formula(query, key, value, bias)
    torch.testing.assert_close(ours, plain, atol=1e-14, rtol=0)
    of_ours, of_plain = (torch.autograd.grad(out.sin().sum(), inputs, create_graph=True) for out in (ours, plain))
    for mine, expected in zip(of_ours, of_plain, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-14, rtol=0)
    seconds = (torch.autograd.grad(sum(g.square().sum() for g in of), inputs) for of in (of_ours, of_plain))
    for mine, expected in zip(*seconds, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", BIASES)
@torch.no_grad()
def test_without_gradients_the_kernel_of_torch_says_the_same(shape):
    query, key, value = parts(groups=True)
    bias = bias_of(shape)
    with torch.enable_grad():
        expected = attend_per_head(query, key, value, bias)
    torch.testing.assert_close(fused_attention(query, key, value, bias), expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(attend_per_head(query, key, value, bias), expected, atol=1e-14, rtol=0)


def test_numerical_derivatives():
    inputs = (*parts(groups=False), bias_of((2, 4, 5)))
    assert gradcheck(attend, inputs, fast_mode=True)
    assert gradgradcheck(attend, inputs, fast_mode=True)


def test_nothing_of_the_size_of_the_scores_is_kept():
    query, key, value = (torch.randn(5, 3, 2, 16, 2, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 16, 16, requires_grad=True)
    kept = kept_bytes(lambda: attend(query, key, value, bias), besides=(query, key, value, bias))
    assert kept == {}


def test_a_bias_gets_its_gradient_in_float32_under_autocast():
    query, key, value = (torch.randn(64, 2, 8, 4, requires_grad=True) for _ in range(3))
    bias = torch.zeros(2, 8, 8, requires_grad=True)
    gradients = []
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            attended = attend(query, key, value, bias)
        gradients.append(torch.autograd.grad(attended.float().square().sum(), bias)[0])
    assert gradients[1].dtype == torch.float32
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()
