"""The norm's precision under autocast."""

import pytest
import torch

from ssl_lens.backbones.layers.norms import LayerNorm


def test_bfloat16_is_read_and_written_with_statistics_in_float32():
    """Tokens of mean 100 and deviation 1, which bfloat16 holds to 0.5: statistics of theirs in it would be far off."""
    norm = LayerNorm(256, eps=1e-6)
    torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x = (100 + torch.randn(8, 256, generator=torch.Generator().manual_seed(0))).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        normed = norm(x)
    assert normed.dtype == torch.bfloat16
    exact = torch.nn.functional.layer_norm(x.double(), (256,), norm.weight.double(), norm.bias.double(), 1e-6)
    torch.testing.assert_close(normed.double(), exact, rtol=2**-8, atol=2**-9)
    normed.float().square().sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert norm.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_elsewhere_it_is_torchs(dtype):
    x, norm, plain = torch.randn(3, 5, dtype=dtype), LayerNorm(5).to(dtype), torch.nn.LayerNorm(5).to(dtype)
    assert torch.equal(norm(x), plain(x))
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(norm(x), plain(x))


def test_float64_stays_under_autocast():
    x, norm = torch.randn(3, 5, dtype=torch.float64), LayerNorm(5).double()
    expected = norm(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norm(x), expected)
