"""Weights cast at once: what autocast would cast layer by layer, and nothing else."""

import pytest
import torch
from torch import nn

from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.lowered_weights import lowered_weights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), ProjectionHead(8, 12, hidden_dim=10, bottleneck_dim=4))


def test_values_and_gradients_are_those_of_autocast_alone() -> None:
    x, seen = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), []
    for at_once in (False, True):
        net = network()
        with torch.autocast("cpu", torch.bfloat16):
            if at_once:
                with lowered_weights(net, "cpu"):
                    out = net(x)
            else:
                out = net(x)
        out.float().square().sum().backward()
        seen.append([out, *(parameter.grad for parameter in net.parameters())])
    for alone, ours in zip(*seen, strict=True):
        assert torch.equal(alone, ours)
    assert {grad.dtype for grad in seen[1][1:]} == {torch.float32}


def test_linear_weights_are_lowered_under_autocast_alone_and_come_back() -> None:
    net, plain = network(), dict(network().named_parameters())
    before = dict(net.named_parameters())
    with lowered_weights(net, "cpu"):
        assert dict(net.named_parameters()).keys() == plain.keys()

    def failing() -> None:
        with torch.autocast("cpu", torch.bfloat16), lowered_weights(net, "cpu"):
            assert net[0].weight.dtype == net[0].bias.dtype == torch.bfloat16
            assert net[1].weight.dtype == torch.float32  # of a norm
            assert net[2].last_layer.weight.dtype == torch.float32  # made of a direction and a length
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        failing()
    after = dict(net.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is parameter for name, parameter in before.items())


def test_an_unused_weight_has_no_gradient_and_float64_stays() -> None:
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3).double()])
    with torch.autocast("cpu", torch.bfloat16), lowered_weights(net, "cpu"):
        assert net[2].weight.dtype == torch.float64
        net[0](torch.ones(1, 3)).sum().backward()
    assert net[0].weight.grad is not None
    assert net[1].weight.grad is None or not net[1].weight.grad.any()
