import numpy as np
import pytest
import torch

from ssl_lens.methods.heads import ProjectionHead

LAST_LAYER_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def reference_name(name: str) -> str:
    for ours, theirs in LAST_LAYER_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def double_head(seed: int = 0, **changes) -> ProjectionHead:
    torch.manual_seed(seed)
    sizes = {"in_dim": 6, "out_dim": 10, "hidden_dim": 8, "bottleneck_dim": 5}
    return ProjectionHead(**(sizes | changes)).double()


def test_head_is_its_formula():
    head = double_head()
    torch.nn.init.uniform_(head.last_layer.parametrizations.weight.original0, 0.5, 2.0)
    parameters = {reference_name(name): value for name, value in head.named_parameters()}
    x = torch.randn(7, 6, dtype=torch.float64)

    h = x
    for layer in (0, 2, 4):
        h = h @ parameters[f"mlp.{layer}.weight"].T + parameters[f"mlp.{layer}.bias"]
        if layer < 4:
            h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    z = h / h.norm(dim=1, keepdim=True)
    v, g = parameters["last_layer.weight_v"], parameters["last_layer.weight_g"]
    expected = z @ (g * v / v.norm(dim=1, keepdim=True)).T

    torch.testing.assert_close(head(x), expected, rtol=0, atol=1e-14)


def test_logits_of_a_fixed_length_head_are_cosines():
    head = double_head(norm_last_layer=True)
    logits = head(100 * torch.randn(50, 6, dtype=torch.float64))
    assert logits.abs().max() <= 1 + 1e-12
    assert [name for name, p in head.named_parameters() if not p.requires_grad] == [
        "last_layer.parametrizations.weight.original0"
    ]
    assert all(p.requires_grad for p in double_head().parameters())


def test_initial_weights():
    head = ProjectionHead(in_dim=64, out_dim=128, hidden_dim=512, bottleneck_dim=32)
    for layer in (0, 2, 4):
        assert head.mlp[layer].weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not head.mlp[layer].bias.any()
    lengths = head.last_layer.weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(128))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_leading_dimensions_are_kept(batch_norm):
    head = double_head(batch_norm=batch_norm)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    out = head(x)
    assert out.shape == (2, 3, 4, 10)
    torch.testing.assert_close(out.flatten(0, 2), head(x.flatten(0, 2)), rtol=0, atol=0)


def test_batch_norm_spreads_look_alike_features():
    """Nearly equal inputs give nearly equal logits without batch norm, and clearly different ones with it."""
    x = torch.ones(32, 6) + 1e-3 * torch.randn(32, 6, generator=torch.Generator().manual_seed(0))
    spreads = []
    for batch_norm in (False, True):
        torch.manual_seed(0)
        logits = ProjectionHead(6, 64, hidden_dim=32, bottleneck_dim=16, batch_norm=batch_norm)(x)
        spreads.append(logits.std(dim=0).mean().item())
    assert spreads[0] < 1e-2
    assert spreads[1] > 10 * spreads[0]


@pytest.mark.parametrize("case", ["norm", "free", "bn"])
def test_golden_dino_head(golden, case):
    data = np.load(golden / "dino_head.npz", allow_pickle=False)
    in_dim, hidden_dim, bottleneck_dim, out_dim = data["dims"].tolist()
    head = ProjectionHead(in_dim, out_dim, hidden_dim, bottleneck_dim, case == "norm", case == "bn").double()
    head.load_state_dict(
        {name: torch.from_numpy(data[f"{case}/param/{reference_name(name)}"]) for name in head.state_dict()}
    )

    def assert_equal(actual: torch.Tensor, key: str) -> None:
        torch.testing.assert_close(actual, torch.from_numpy(data[f"{case}/{key}"]), rtol=0, atol=1e-10)

    x = torch.from_numpy(data[f"{case}/x"]).double().requires_grad_()
    out = head(x)
    assert_equal(out.detach(), "out")
    assert_equal(head.last_layer.weight.detach(), "effective_last_weight")
    out.backward(torch.from_numpy(data[f"{case}/cotangent"]))
    assert_equal(x.grad, "grad_x")
    frozen = {reference_name(name) for name, p in head.named_parameters() if not p.requires_grad}
    assert frozen == set(data[f"{case}/frozen"].tolist()) - {""}
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            assert_equal(parameter.grad, f"grad/{reference_name(name)}")
    if case == "bn":
        for name, buffer in head.named_buffers():
            assert_equal(buffer, f"buffer_after/{name}")
        assert_equal(head.eval()(x).detach(), "out_eval")
