"""RegionViT against its authors' code, and its regions written out token by token."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import formula_image, formula_weights

from ssl_lens.backbones.layers.token_groups import Groups
from ssl_lens.backbones.regionvit import RegionBlock, RegionStage, RegionViT, RegionViTOptions
from ssl_lens.errors import InputError

FIXTURE = Path(__file__).parent / "fixtures" / "regionvit.npz"  # IBM/RegionViT ebe1aa9, regionvit/regionvit.py


def narrow(in_channels: int = 2) -> RegionViT:
    return RegionViT(in_channels, RegionViTOptions(16, (1, 1, 2, 1), (2, 2, 4, 4), mlp_ratio=2.0))


def test_regionvit_tiny_has_the_published_parameters():
    network = RegionViT(3)
    assert sum(p.numel() for p in (*network.parameters(), *network.head(1000).parameters())) == 13_842_676


@pytest.mark.parametrize(
    ("name", "side", "every", "network"),
    [
        ("narrow", 112, 2, RegionViT(2, RegionViTOptions(16, depths=(1, 2, 1), num_heads=(1, 2, 4)))),
        ("tiny", 224, 16, RegionViT(3)),
    ],
)
@torch.no_grad()
def test_it_equals_the_authors(name, side, every, network):
    data = np.load(FIXTURE, allow_pickle=False)  # regions: their last local tokens after their final norm
    network.double().eval()
    network.load_state_dict(formula_weights(network), strict=True)
    view, regions, _ = network(formula_image(1, network.in_channels, side, side))
    np.testing.assert_allclose(view[0].numpy(), data[f"{name}_view"], atol=1e-9, rtol=0)
    np.testing.assert_allclose(regions[0, ::every].numpy(), data[f"{name}_regions"], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("size", "count", "window"), [((5, 4), (2, 2), (3, 2)), ((2, 5), (1, 2), (3, 3))])
@torch.no_grad()
def test_a_stage_is_that_written_out_token_by_token(size, count, window):
    torch.manual_seed(0)
    stage = RegionStage(8, 2, 3, mlp_ratio=1.0, drop_path=(0.0, 0.0), downsample=False).double()
    for parameter in stage.parameters():
        parameter.normal_(std=0.5)
    regions, local = torch.randn(1, 8, *count, dtype=torch.float64), torch.randn(1, 8, *size, dtype=torch.float64)
    expected = regions[0].permute(1, 2, 0), local[0].permute(1, 2, 0)
    for block in stage.blocks:
        expected = _token_by_token(block, *expected, window)
    for ours, theirs in zip(stage(regions, local, window), expected, strict=True):
        torch.testing.assert_close(ours[0].permute(1, 2, 0), theirs, atol=1e-10, rtol=0)


def _token_by_token(block: RegionBlock, regions, local, window):
    """Maps [r, s, C] and [h, w, C]; only tokens that exist take part."""
    places = [(row, column) for row in range(regions.shape[0]) for column in range(regions.shape[1])]
    among = _attend(block, [block.norm0(regions[place]) for place in places], lambda query, key: 0.0)
    new_regions, new_local = torch.zeros_like(regions), torch.zeros_like(local)
    for place, attended in zip(places, among, strict=True):
        tokens = [
            (row, column)
            for row in range(local.shape[0])
            for column in range(local.shape[1])
            if (row // window[0], column // window[1]) == place
        ]
        x = torch.stack([regions[place] + attended, *(local[token] for token in tokens)])

        def bias(query, key, tokens=tokens):
            if not query or not key:
                return 0.0
            row, column = (tokens[key - 1][a] - tokens[query - 1][a] + 1 for a in (0, 1))
            return block.rel_pos.view(2, 5, 5)[:, row, column]  # offsets -2, -1, 0, 1, 2 lie at -1, 0, 1, 2, 3

        x = x + torch.stack(_attend(block, block.norm1(x), bias))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        new_regions[place] = x[0]
        for token, value in zip(tokens, x[1:], strict=True):
            new_local[token] = value
    return new_regions, new_local


def _attend(block: RegionBlock, tokens, bias) -> list[torch.Tensor]:
    qkv = [block.attn.qkv(token).view(3, 2, 4) for token in tokens]
    attended = []
    for i, (query, _, _) in enumerate(qkv):
        scores = torch.stack([(query * key).sum(-1) / 2 + bias(i, j) for j, (_, key, _) in enumerate(qkv)])
        weights = scores.softmax(dim=0)
        heads = sum(weight[:, None] * value for weight, (_, _, value) in zip(weights, qkv, strict=True))
        attended.append(block.attn.proj(heads.flatten()))
    return attended


@pytest.mark.parametrize("window_size", [3, 7])
def test_every_region_of_every_stage_holds_part_of_the_image_and_all_of_it_is_in_one(window_size):
    for side in range(1, 200):
        (window, _), (count, _), *_ = Groups.even(side, 1, window_size)
        while True:
            assert (count - 1) * window < side <= count * window
            if side == count == 1:
                break
            side, count = -(-side // 2), -(-count // 2)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (65, 70), (30, 97), (1, 5)])
@torch.no_grad()
def test_any_size_and_channels_give_maps_rounded_up(size, in_channels):
    torch.manual_seed(0)
    network = narrow(in_channels).eval()
    images = torch.randn(1, in_channels, *size)
    maps = network.stages(images)
    for stage, stage_map in enumerate(maps):
        expected = tuple(-(-side // (4 * 2**stage)) for side in size)
        assert stage_map.shape == (1, 16 * 2**stage, *expected)
        assert stage_map.isfinite().all()
    assert network.map_size(*size) == maps[-1].shape[2:]
    view, regions, _ = network(images)
    assert view.shape == (1, network.embed_dim)
    assert regions.shape == (1, maps[-1][0, 0].numel(), network.embed_dim)
    torch.testing.assert_close(regions[:, -1], maps[-1][:, :, -1, -1])


@torch.no_grad()
def test_a_regional_patch_begins_where_its_window_does():
    network = narrow(1)  # 64 px: three windows of 6 local tokens, so patches of 28 px every 24 px
    image = torch.zeros(1, 1, 64, 64)
    image[:, :, 24:52, 48:] = 1
    windows = Groups.even(16, 16, 7)
    tokens = network._embed_regions(image, windows)
    weight = network.region_embed.weight
    assert tokens.shape == (1, 16, 3, 3)
    expected = weight[:, :, :, :16].sum(dim=(1, 2, 3)) + network.region_embed.bias
    torch.testing.assert_close(tokens[0, :, 1, 2], expected, atol=1e-5, rtol=1e-5)


def test_drop_path_rises_linearly_and_drops_regions_one_by_one():
    torch.manual_seed(0)
    network = RegionViT(1, RegionViTOptions(16, depths=(1, 2, 2), num_heads=(1, 2, 2), drop_path=0.4))
    first, *others = [block.drop_path for stage in network.layers for block in stage.blocks]
    assert isinstance(first, torch.nn.Identity)
    np.testing.assert_allclose([drop.drop_prob for drop in others], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    dropped = network.layers[2].blocks[1]._drop_per_region(torch.ones(2, 50, 3, 4))
    assert (dropped == dropped[:, :, :1, :1]).all()
    assert all(0 < (image[:, 0, 0] == 0).sum() < 50 for image in dropped)


def test_fresh_weights_are_the_authors():
    torch.manual_seed(0)
    network = narrow()
    block = network.layers[2].blocks[1]
    for tensor in (block.attn.qkv.weight, block.mlp.fc1.weight, block.rel_pos):
        assert abs(tensor.std().item() - 0.02) < 2e-3
    assert not block.attn.qkv.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2, 2), "num_heads": (1,)}, r"depths=\[2, 2\], num_heads=\[1\] do not fit"),
        ({"embed_dim": 42}, "embed_dim=42 .* use a multiple of 4"),
        ({"num_heads": (3, 4, 8, 16)}, r"\[64, 128, 256, 512\] are not multiples of num_heads=\[3, 4, 8, 16\]"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        RegionViT(1, RegionViTOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="image size 64x0 px is empty; use 1 px or more"):
        narrow().map_size(64, 0)
