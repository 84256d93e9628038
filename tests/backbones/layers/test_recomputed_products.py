"""Linear layers behind a norm or a GELU: as written out, twice differentiable, and with little kept."""

import pytest
import torch
import torch.nn.functional as F
from kept import kept_bytes
from torch import nn

from ssl_lens.backbones.layers.norms import LayerNorm
from ssl_lens.backbones.layers.products import Mlp, gelu_linear, norm_linear

TOKENS = (3, 5)


class Both(nn.Module):
    """A product behind a norm, and one behind a GELU."""

    def __init__(self, width: int = 4, hidden: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.mlp = LayerNorm(width, eps=1e-3), Mlp(width, hidden)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, x):
        return self.mlp(x, self.norm)

    def written_out(self, x):
        return self.mlp.fc2(F.gelu(self.mlp.fc1(F.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, 1e-3))))


def derivatives(function, x, module):
    """The value, first derivatives, and derivatives of their squares."""
    inputs = [x, *module.parameters()]
    value = function(x)
    first = torch.autograd.grad(value.sin().sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(each.square().sum() for each in first), inputs)
    return [value, *first, *second]


def test_value_and_two_derivatives_are_those_written_out():
    both = Both().double()
    x = torch.randn(*TOKENS, 4, dtype=torch.float64, requires_grad=True)
    for ours, plain in zip(derivatives(both, x, both), derivatives(both.written_out, x, both), strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, plain, atol=1e-11, rtol=1e-11)


def test_frozen_parameters_get_no_gradient():
    both = Both()
    both.norm.requires_grad_(False)
    both.mlp.fc2.bias.requires_grad_(False)
    x = torch.randn(*TOKENS, 4, requires_grad=True)
    both(x).square().sum().backward()
    assert [name for name, parameter in both.named_parameters() if parameter.grad is None] == [
        "norm.weight",
        "norm.bias",
        "mlp.fc2.bias",
    ]


@pytest.mark.parametrize("bf16", [False, True])
def test_the_input_and_one_hidden_map_are_kept(bf16):
    both = Both(width=8, hidden=32)
    x = torch.randn(64, 8).to(torch.bfloat16 if bf16 else torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        kept = kept_bytes(lambda: both(x), besides=both.parameters())
    weights = 2 * (2 * 8 * 32) if bf16 else 0  # cast for both products
    assert sum(kept.values()) == x.element_size() * 64 * (8 + 32) + weights
    assert set(kept) == {x.dtype}


def test_under_autocast_tokens_are_bfloat16_and_gradients_of_weights_float32():
    both, x = Both(16, 32), torch.randn(40, 16)
    expected = both(x)
    with torch.autocast("cpu", torch.bfloat16):
        value = both(x)
    assert value.dtype == torch.bfloat16
    assert (value.float() - expected).norm() / expected.norm() < 0.01  # 4 roundings of 2^-9
    value.float().sum().backward()
    assert {parameter.grad.dtype for parameter in both.parameters()} == {torch.float32}


def test_backward_within_autocast_is_that_outside_of_it():
    gradients = []
    for within in (False, True):
        both = Both(16, 32)
        x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16):
            total = both(x).float().sum()
            if within:
                total.backward()
        if not within:
            total.backward()
        gradients.append([parameter.grad for parameter in both.parameters()])
    for inside, outside in zip(*gradients, strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler about itself
def test_both_are_compiled_without_a_break():
    norm, linear = LayerNorm(4), nn.Linear(4, 4)

    def twice(x):
        return gelu_linear(norm_linear(x, norm, linear), linear)

    x = torch.randn(*TOKENS, 4, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(twice, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), twice(x))
    ours, plain = (torch.autograd.grad(function(x).sin().sum(), x)[0] for function in (compiled, twice))
    torch.testing.assert_close(ours, plain)
