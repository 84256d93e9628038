"""CvT-13 and CvT-21 against transformers, with the authors' activation, and the names of the authors' weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import formula_image, formula_weights

from ssl_lens.backbones.cvt import CvT, CvTOptions
from ssl_lens.errors import InputError
from ssl_lens.runs.checkpoint import load_into

# Made by transformers 5.23.0 (CvtForImageClassification), its GELU exchanged for the QuickGELU of microsoft/CvT.
FIXTURE = Path(__file__).parent / "fixtures" / "cvt.npz"


def small() -> CvT:
    return CvT(2, CvTOptions((8, 12, 18), num_heads=(1, 2, 3), depths=(1, 2, 3), mlp_ratio=2.0))


def with_formula_weights(network: CvT) -> CvT:
    network = network.double().eval()
    network.load_state_dict(formula_weights(network))
    return network


@pytest.mark.parametrize(("depths", "parameters"), [((1, 2, 10), 19_997_480), ((1, 4, 16), 31_622_696)])
def test_it_has_the_published_parameters(depths, parameters):
    network = CvT(3, CvTOptions(depths=depths))
    assert sum(p.numel() for m in (network, network.head(1000)) for p in m.parameters()) == parameters


@pytest.mark.parametrize(("height", "width"), [(32, 32), (35, 52)])
@torch.no_grad()
def test_every_stage_equals_transformers(height, width):
    network = with_formula_weights(small())
    images = formula_image(2, 2, height, width)
    stored = np.load(FIXTURE, allow_pickle=False)
    view, regions, _ = network(images)
    maps = network.stages(images)
    for ours, name in ((view, "view"), (regions, "regions"), (maps[0], "stage0"), (maps[1], "stage1")):
        np.testing.assert_allclose(ours.numpy(), stored[f"small_{name}_{height}x{width}"], atol=1e-10, rtol=0)
    torch.testing.assert_close(maps[2].flatten(2).mT, regions, atol=0, rtol=0)


@pytest.mark.parametrize(("name", "depths"), [("cvt_13", (1, 2, 10)), ("cvt_21", (1, 4, 16))])
@torch.no_grad()
def test_the_published_sizes_equal_transformers(name, depths):
    view, regions, _ = with_formula_weights(CvT(3, CvTOptions(depths=depths)))(formula_image(1, 3, 48, 36))
    stored = np.load(FIXTURE, allow_pickle=False)
    np.testing.assert_allclose(view.numpy(), stored[f"{name}_view_48x36"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(regions.numpy(), stored[f"{name}_regions_48x36"], atol=1e-10, rtol=0)


def published_state(network: CvT) -> dict[str, torch.Tensor]:
    """A state dict under the names of microsoft/CvT, put together from their parts, of CvT-13's depths."""
    own = iter(network.state_dict().values())
    names = []
    for stage, depth in enumerate((1, 2, 10)):
        names += ["stage2.cls_token"] if stage == 2 else []
        names += [f"stage{stage}.patch_embed.{part}.{p}" for part in ("proj", "norm") for p in ("weight", "bias")]
        for block in (f"stage{stage}.blocks.{j}" for j in range(depth)):
            norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            names += [f"{block}.norm1.{p}" for p in ("weight", "bias")]
            for part in "qkv":
                names += [f"{block}.attn.conv_proj_{part}.conv.weight"]
                names += [f"{block}.attn.conv_proj_{part}.bn.{p}" for p in norm]
            names += [f"{block}.attn.proj{part}.{p}" for part in ("_q", "_k", "_v", "") for p in ("weight", "bias")]
            names += [f"{block}.{part}.{p}" for part in ("norm2", "mlp.fc1", "mlp.fc2") for p in ("weight", "bias")]
    names += ["norm.weight", "norm.bias"]
    state = dict(zip(names, own, strict=True))
    return state | {"head.weight": torch.zeros(1000, 384), "head.bias": torch.zeros(1000)}


def test_the_authors_state_dict_loads_strictly():
    network = CvT(3)
    state = published_state(network)
    assert state["stage2.blocks.9.attn.conv_proj_k.conv.weight"].shape == (384, 1, 3, 3)
    mapped = CvT.from_published(state)
    load_into(network, mapped, source=Path("CvT-13-224x224-IN-1k.pth"))
    assert all(mapped[name] is tensor or mapped[name].equal(tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: CvT(3, CvTOptions(depths=(1, 4, 16))), r"theirs.pth .* another network: 272 keys missing, 0 unknown"),
        (lambda: CvT(1), r"1 of another shape \(layers.0.patch_embed.proj.weight \(64, 3, 7, 7\) instead of"),
    ],
)
def test_the_state_of_another_network_is_refused_with_its_keys_and_shapes(other, message):
    with pytest.raises(InputError, match=message):
        load_into(other(), CvT.from_published(published_state(CvT(3))), source=Path("theirs.pth"))


def test_the_class_token_alone_is_the_view():
    network = with_formula_weights(small())
    images = formula_image(1, 2, 32, 32).requires_grad_()
    view, regions, _ = network(images)
    assert not view.allclose(regions.mean(dim=1))
    view.square().sum().backward()
    assert network.layers[-1].cls_token.grad.abs().max() > 0
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 50), (64, 65)])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_any_size_gives_the_map_it_announces(size, channels):
    network = CvT(channels, CvTOptions((4, 6, 8), num_heads=(1, 2, 2), depths=(1, 1, 1))).eval()
    view, regions, _ = network(torch.randn(2, channels, *size))
    assert network.map_size(*size) == (-(-size[0] // 16), -(-size[1] // 16))
    assert view.shape == (2, 8)
    assert regions.shape == (2, np.prod(network.map_size(*size)), 8)
    assert network.stages(torch.randn(1, channels, *size))[-1].shape[2:] == network.map_size(*size)


@torch.no_grad()
def test_a_size_off_the_stride_is_that_image_on_a_larger_one_of_zeros():
    network = with_formula_weights(small())
    image = formula_image(1, 2, 30, 41)
    padded = torch.nn.functional.pad(image, (0, 3, 0, 2))
    torch.testing.assert_close(network(image).regions, network(padded).regions, atol=1e-12, rtol=0)


def test_drop_path_rises_over_the_last_stage_only():
    network = CvT(1, CvTOptions((2, 2), (3, 3), (2, 2), (1, 1), (2, 3), drop_path=0.4))
    first, second = ([block.drop_path for block in stage.blocks] for stage in network.layers)
    assert all(isinstance(drop, torch.nn.Identity) for drop in (*first, second[0]))
    np.testing.assert_allclose([drop.drop_prob for drop in second[1:]], [0.2, 0.4], rtol=1e-6)


def test_fresh_weights_are_the_authors():
    torch.manual_seed(0)
    network = CvT(3, CvTOptions(depths=(1, 1, 1)))
    block = network.layers[2].blocks[0]
    assert all(linear.bias.eq(0).all() for linear in (block.attn.proj_q, block.attn.proj, block.mlp.fc1))
    for weight in (block.attn.proj_k.weight, block.mlp.fc2.weight, network.head(1000).weight):
        assert abs(weight.std().item() - 0.02) < 1e-3
    assert 0.01 < network.layers[2].cls_token.std() < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 2)}, r"depths=\[1, 2\] of the CvT do not fit; give each one value per stage"),
        ({"num_heads": (1, 5, 6)}, r"dims=\[64, 192, 384\] .* not multiples of num_heads=\[1, 5, 6\]"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CvT(1, CvTOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match=r"image size 0x64 px is empty; use 1 px or more"):
        small()(torch.zeros(1, 2, 0, 64))
