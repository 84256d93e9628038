"""CrossFormer against its authors' code, and its groups written out token by token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import formula_image, formula_weights
from torch.nn import functional as F

from ssl_lens.backbones.crossformer import CrossFormer, CrossFormerBlock, CrossFormerOptions
from ssl_lens.backbones.layers.token_groups import Groups
from ssl_lens.errors import InputError

FIXTURE = Path(__file__).parent / "fixtures" / "crossformer.npz"  # cheerss/CrossFormer f20000d, models/crossformer.py
TINY = {}
SMALL = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "drop_path": 0.2}


def narrow(in_channels: int = 2, group_size: int = 7) -> CrossFormer:
    return CrossFormer(in_channels, CrossFormerOptions(48, (2, 1, 2, 1), (2, 2, 4, 4), group_size, mlp_ratio=2.0))


@pytest.mark.parametrize(("arguments", "count"), [(TINY, 27_776_794), (SMALL, 30_657_394)])
def test_they_have_the_published_parameters(arguments, count):
    network = CrossFormer(3, CrossFormerOptions(**arguments))
    assert sum(p.numel() for p in (*network.parameters(), *network.head(1000).parameters())) == count


@torch.no_grad()
def assert_equals_the_authors(network: CrossFormer, side: int, name: str, every: int) -> None:
    data = np.load(FIXTURE, allow_pickle=False)
    network.double().eval().load_state_dict(formula_weights(network.double()), strict=True)
    view, regions, _ = network(formula_image(1, network.in_channels, side, side))
    np.testing.assert_allclose(view[0].numpy(), data[f"{name}_view"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(regions[0, ::every].numpy(), data[f"{name}_regions"], atol=1e-10, rtol=0)


def test_a_narrow_one_equals_the_authors():
    network = CrossFormer(
        2, CrossFormerOptions(32, depths=(2, 2, 1), num_heads=(2, 2, 4))
    )  # 112 px: maps of 28, 14 and 7 tokens
    assert_equals_the_authors(network, 112, "narrow", every=2)


@pytest.mark.parametrize(("name", "arguments"), [("tiny", TINY), pytest.param("small", SMALL, marks=pytest.mark.slow)])
def test_it_equals_the_authors_at_224_px(name, arguments):
    assert_equals_the_authors(CrossFormer(3, CrossFormerOptions(**arguments)), 224, name, every=16)


@pytest.mark.parametrize(
    ("side", "size", "count"), [(56, 7, 8), (28, 7, 4), (14, 7, 2), (7, 7, 1), (1, 1, 1), (8, 4, 2), (16, 6, 3)]
)
def test_groups_are_even_and_have_the_published_interval_at_224_px(side, size, count):
    assert Groups.even(side, 3, largest=7) == Groups((size, 3), (count, 1))


@pytest.mark.parametrize("distant", [False, True])
@pytest.mark.parametrize("side", range(1, 60))
def test_every_token_has_one_place_and_no_group_is_padding_only(side, distant):
    groups = Groups.even(side, 1, largest=7, distant=distant)
    x = torch.arange(1.0, side + 1).view(1, side, 1, 1)
    gathered = groups.gather(x)
    assert (gathered.amax(dim=2) > 0).all()
    torch.testing.assert_close(groups.scatter(gathered, side, 1), x)


@pytest.mark.parametrize("distant", [False, True])
@pytest.mark.parametrize("size", [(5, 5), (4, 7), (2, 3), (1, 1)])
@torch.no_grad()
def test_attention_is_that_written_out_token_by_token(size, distant):
    torch.manual_seed(0)
    block = CrossFormerBlock(48, 2, mlp_ratio=1.0, drop_path=0.0).double()
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    x = torch.randn(1, *size, 48, dtype=torch.float64)
    groups = Groups.even(*size, largest=3, distant=distant)
    torch.testing.assert_close(block(x, groups), _token_by_token(block, x, distant), atol=1e-10, rtol=0)


def _token_by_token(block: CrossFormerBlock, x: torch.Tensor, distant: bool) -> torch.Tensor:
    """Groups of three or less; there is no padding here that could take part."""
    size = x.shape[1:3]
    count = [-(-side // 3) for side in size]
    width = [-(-side // n) for side, n in zip(size, count, strict=True)]
    tokens = [(row, column) for row in range(size[0]) for column in range(size[1])]

    def group_and_place(token):
        parts = [divmod(token[a], count[a] if distant else width[a]) for a in (0, 1)]
        (first, second), (third, fourth) = parts
        return ((second, fourth), (first, third)) if distant else ((first, third), (second, fourth))

    qkv = {t: block.attn.qkv(block.norm1(x[0, t[0], t[1]])).view(3, 2, 24) for t in tokens}
    attended = torch.zeros_like(x)
    for query in tokens:
        group, place = group_and_place(query)
        keys = [t for t in tokens if group_and_place(t)[0] == group]
        offsets = [[place[a] - group_and_place(t)[1][a] for a in (0, 1)] for t in keys]
        bias = [_position_bias(block, torch.tensor(offset, dtype=x.dtype)) for offset in offsets]
        heads = []
        for head in range(2):
            scores = [
                qkv[query][0, head] @ qkv[t][1, head] / 24**0.5 + b[head] for t, b in zip(keys, bias, strict=True)
            ]
            weights = torch.stack(scores).softmax(dim=0)
            heads.append(sum(w * qkv[t][2, head] for w, t in zip(weights, keys, strict=True)))
        attended[0, query[0], query[1]] = block.attn.proj(torch.cat(heads))
    x = x + attended
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def _position_bias(block: CrossFormerBlock, offset: torch.Tensor) -> torch.Tensor:
    x = block.pos.pos_proj(offset)
    for norm, _, linear in (block.pos.pos1, block.pos.pos2, block.pos.pos3):
        x = linear(norm(x).relu())
    return x


@pytest.mark.parametrize("size", [(64, 64), (65, 70)])
@torch.no_grad()
def test_what_completes_a_map_to_whole_groups_has_no_influence(size, monkeypatch):
    torch.manual_seed(0)
    network = narrow().double().eval()
    images = torch.randn(2, 2, *size, dtype=torch.float64)
    expected = network(images).regions
    pad, padded = Groups.pad, []

    def pad_with_rubbish(groups, x):
        missing = [groups.size[a] * groups.count[a] - x.shape[1 + a] for a in (0, 1)]
        if x.shape[-1] > 1:  # not the mask
            padded.append(any(missing))
            x = F.pad(x, (0, 0, 0, missing[1], 0, missing[0]), value=30.0)
        return pad(groups, x)

    monkeypatch.setattr(Groups, "pad", pad_with_rubbish)
    torch.testing.assert_close(network(images).regions, expected, atol=1e-12, rtol=0)
    assert any(padded)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (65, 70), (30, 97), (1, 5)])
@torch.no_grad()
def test_any_size_and_channels_give_maps_rounded_up(size, in_channels):
    torch.manual_seed(0)
    network = narrow(in_channels).eval()
    maps = network.stages(torch.randn(1, in_channels, *size))
    for stage, stage_map in enumerate(maps):
        expected = tuple(-(-side // (4 * 2**stage)) for side in size)
        assert stage_map.shape == (1, 48 * 2**stage, *expected)
        assert stage_map.isfinite().all()
    assert network.map_size(*size) == maps[-1].shape[2:]


def test_drop_path_rises_linearly_and_fresh_weights_are_the_authors():
    torch.manual_seed(0)
    network = CrossFormer(1, CrossFormerOptions(48, depths=(1, 2, 2), num_heads=(1, 2, 2), drop_path=0.4))
    first, *others = [block.drop_path for stage in network.layers for block in stage.blocks]
    assert isinstance(first, torch.nn.Identity)
    np.testing.assert_allclose([drop.drop_prob for drop in others], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    linear = network.layers[2].blocks[1].attn.qkv
    assert abs(linear.weight.std().item() - 0.02) < 1e-3
    assert not linear.bias.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (2, 2), "num_heads": (1,)}, r"depths=\[2, 2\], num_heads=\[1\] do not fit"),
        ({"embed_dim": 40}, "embed_dim=40 .* use a multiple of 16"),
        ({"num_heads": (3, 4, 8, 16)}, r"\[64, 128, 256, 512\] are not multiples of num_heads=\[3, 4, 8, 16\]"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CrossFormer(1, CrossFormerOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="image size 0x64 px is empty; use 1 px or more"):
        narrow().map_size(0, 64)
