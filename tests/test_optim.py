import json

import numpy as np
import pytest
import torch
from flat_names import Named
from torch import nn

from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.optim import adamw, clip_per_tensor, parameter_groups, set_hyperparameters


def small_module() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), ProjectionHead(4, 6, 5, 3))
    return module.double()


def names_of(group: dict, module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if any(p is q for q in group["params"])}


def test_biases_and_vectors_are_not_decayed():
    module = small_module()
    module.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    module.register_parameter("table", nn.Parameter(torch.ones(9, 2)))
    module.add_module("wide", nn.ParameterDict({"bias": torch.ones(3, 1, 1)}))
    module[0].weight.requires_grad_(False)
    decayed, undecayed = parameter_groups(module)
    assert undecayed["weight_decay"] == 0
    assert names_of(undecayed, module) == {
        "0.bias",
        "1.weight",
        "1.bias",
        "wide.bias",
        "3.mlp.0.bias",
        "3.mlp.2.bias",
        "3.mlp.4.bias",
    }
    assert {"scale", "table", "3.last_layer.parametrizations.weight.original0"} <= names_of(decayed, module)
    assert "0.weight" not in names_of(decayed, module)


def test_only_group_0_gets_weight_decay():
    optimizer = adamw(small_module())
    set_hyperparameters(optimizer, lr=0.1, weight_decay=0.5)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.5), (0.1, 0.0)]


def test_adamw_step_by_hand():
    """First step of AdamW: decay by 1 - lr wd, then minus lr times the sign of the gradient."""
    module = nn.Linear(2, 1).double()
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    optimizer = adamw(module)
    set_hyperparameters(optimizer, lr=0.1, weight_decay=0.5)
    module(torch.tensor([[1.0, -2.0]], dtype=torch.float64)).sum().backward()
    optimizer.step()
    sign = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(module.weight, weight * (1 - 0.1 * 0.5) - 0.1 * sign, rtol=0, atol=1e-8)
    torch.testing.assert_close(module.bias, bias - 0.1, rtol=0, atol=1e-8)


def test_clipping_is_per_tensor():
    large, small, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    large.grad, small.grad = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4])
    norms = clip_per_tensor([large, small, unused], max_norm=5.0)
    torch.testing.assert_close(norms, torch.tensor([50.0, 0.5]))
    torch.testing.assert_close(large.grad, torch.tensor([3.0, 4.0]))
    torch.testing.assert_close(small.grad, torch.tensor([0.3, 0.4]), rtol=0, atol=0)
    assert unused.grad is None
    assert clip_per_tensor([unused], max_norm=5.0).numel() == 0


def test_clipping_lands_just_below_the_limit_and_takes_zeros():
    """The 1e-6 added to the norm, as the reference: 1 becomes 0.5 / 1.000001."""
    one, zero = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    one.grad, zero.grad = torch.ones_like(one), torch.zeros_like(zero)
    clip_per_tensor([one, zero], max_norm=0.5)
    assert one.grad.item() == pytest.approx(0.5 / 1.000001, rel=1e-12)
    assert zero.grad.item() == 0


@pytest.fixture
def golden_optim(golden):
    return np.load(golden / "optim.npz", allow_pickle=False)


def golden_module(data) -> Named:
    named = {}
    for name, shape, requires_grad in zip(data["names"], data["shapes"], data["requires_grad"], strict=True):
        named[str(name)] = nn.Parameter(torch.zeros(json.loads(str(shape)), dtype=torch.float64), bool(requires_grad))
        if f"grad_in/{name}" in data:
            named[str(name)].grad = torch.from_numpy(data[f"grad_in/{name}"].copy())
    return Named(named)


def test_golden_parameter_groups(golden_optim):
    module = golden_module(golden_optim)
    groups = parameter_groups(module)
    for name, expected in zip(golden_optim["names"], golden_optim["group"], strict=True):
        found = [i for i, group in enumerate(groups) if any(p is module.named[name] for p in group["params"])]
        assert found == ([expected] if expected >= 0 else []), name
    assert groups[1]["weight_decay"] == golden_optim["group1_weight_decay"]


def test_golden_clip(golden_optim):
    module = golden_module(golden_optim)
    norms = clip_per_tensor(module.named.values(), float(golden_optim["clip"]))
    with_gradient = [name for name, p in module.named.items() if p.grad is not None]
    assert with_gradient == golden_optim["norm_names"].tolist()
    np.testing.assert_allclose(norms, golden_optim["norms_before"], rtol=0, atol=1e-12)
    for name in with_gradient:
        np.testing.assert_allclose(module.named[name].grad, golden_optim[f"grad_clipped/{name}"], rtol=0, atol=1e-12)
