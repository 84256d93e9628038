"""Swin against timm, against the reference's numbers, and against its windows written out as loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer

from ssl_lens.backbones.swin import LayerNorm, Swin, SwinBlock, SwinOptions, SwinStage
from ssl_lens.errors import InputError


def test_swin_tiny_has_the_published_parameters():
    head = 768 * 1000 + 1000
    assert sum(p.numel() for p in Swin(3).parameters()) + head == 28_288_354


@pytest.mark.parametrize("padding", ["clamp", "reference"])
@torch.no_grad()
def test_it_equals_timm_where_nothing_is_padded(padding):
    torch.manual_seed(0)
    theirs = SwinTransformer(  # maps of 14 and 7 tokens at 56 px, shifted windows in the first stage
        img_size=56,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=7,
        num_classes=0,
        norm_layer=LayerNorm,
    )
    built_for = 56 if padding == "reference" else None  # 7 tokens in its last stage, which shifts none
    ours = Swin(3, SwinOptions(8, depths=(2, 2), num_heads=(2, 4), padding=padding, reference_size=built_for))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.randn(2, 3, 56, 56, dtype=torch.float64)
    expected = theirs.double().eval()(images)
    torch.testing.assert_close(ours.double().eval()(images).view, expected, atol=1e-12, rtol=0)


@torch.no_grad()
def test_it_reproduces_the_reference_backbone(golden: Path):
    data = np.load(golden / "swin_backbone.npz", allow_pickle=False)
    config = json.loads(str(data["config"]))
    network = Swin(
        3,
        SwinOptions(
            config["embed_dim"],
            config["depths"],
            config["num_heads"],
            config["patch_size"],
            config["window_size"],
            config["mlp_ratio"],
            padding="reference",
        ),
    )
    weights = {
        _timm_name(key.removeprefix("param/")): torch.from_numpy(data[key]) for key in data if key.startswith("param/")
    }
    network.load_state_dict(weights, strict=True)
    network = network.double().eval()
    crops = [torch.from_numpy(data[f"crop{i}"]).double() for i in range(4)]
    features = [network(crop) for crop in crops]

    assert [features[0].regions.shape[1], features[2].regions.shape[1]] == data["npatch"].tolist()
    _close(torch.cat([f.view for f in features]), data["view_features"])
    _close(torch.cat([f.regions.flatten(0, 1) for f in features]), data["region_features"])
    _close(network.last_blocks(crops[0], 1), data["last1_blocks_global0"])
    _close(network.last_blocks(crops[0], 4), data["last4_blocks_global0"])
    _close(network.last_blocks(crops[2], 4), data["last4_blocks_local0"])


def _timm_name(name: str) -> str:
    """The reference keeps the patch merging at a stage's end, timm at the next one's beginning."""
    parts = name.split(".")
    if parts[0] == "layers" and parts[2] == "downsample":
        parts[1] = str(int(parts[1]) + 1)
    return ".".join(parts)


def _close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("reference_side", [None, 28])
@pytest.mark.parametrize("size", [(5, 5), (4, 7), (2, 3), (1, 1)])
@torch.no_grad()
def test_windows_are_those_written_out_token_by_token(size, reference_side):
    torch.manual_seed(0)
    stage = SwinStage(6, 2, 3, reference_side, mlp_ratio=1.0, drop_path=(0.0, 0.0), downsample=False).double()
    for parameter in stage.parameters():
        parameter.normal_()
    x = torch.randn(1, *size, 6, dtype=torch.float64)
    shifts = (0, 0), tuple(stage.window_and_shift(side)[1] for side in size)
    window = tuple(stage.window_and_shift(side)[0] for side in size)

    expected = x
    for block, shift in zip(stage.blocks, shifts, strict=True):
        expected = _block_token_by_token(block, expected, window, shift, see_padding=reference_side is not None)
    torch.testing.assert_close(stage(x)[-1], expected, atol=1e-10, rtol=0)


def _block_token_by_token(block: SwinBlock, x, window, shift, see_padding):
    """Each token attends to those of its window that were its neighbours before the roll."""
    height, width = x.shape[1:3]
    padded = [-(-side // w) * w for side, w in zip((height, width), window, strict=True)]
    tokens = {
        (row, column): block.norm1(x[0, row, column]) if row < height and column < width else x.new_zeros(6)
        for row in range(padded[0])
        for column in range(padded[1])
    }
    place = {t: tuple((t[a] - shift[a]) % padded[a] for a in (0, 1)) for t in tokens}  # after the roll
    wrapped = {t: tuple(t[a] < shift[a] for a in (0, 1)) for t in tokens}
    attended = torch.zeros_like(x)
    for query in tokens:
        if query[0] >= height or query[1] >= width:
            continue
        keys = [
            t
            for t in tokens
            if all(place[t][a] // window[a] == place[query][a] // window[a] for a in (0, 1))
            and wrapped[t] == wrapped[query]
            and (see_padding or (t[0] < height and t[1] < width))
        ]
        heads = []
        for head in range(2):
            q, k, v = (block.attn.qkv.weight.view(3, 2, 3, 6)[i, head] for i in range(3))
            qb, kb, vb = (block.attn.qkv.bias.view(3, 2, 3)[i, head] for i in range(3))
            scores = []
            for key in keys:
                row, column = (place[query][a] - place[key][a] + 2 for a in (0, 1))  # a table of 5x5 for windows of 3
                bias = block.attn.relative_position_bias_table[row * 5 + column, head]
                scores.append((q @ tokens[query] + qb) @ (k @ tokens[key] + kb) / 3**0.5 + bias)
            weights = torch.stack(scores).softmax(dim=0)
            heads.append(sum(w * (v @ tokens[key] + vb) for w, key in zip(weights, keys, strict=True)))
        attended[0, query[0], query[1]] = block.attn.proj(torch.cat(heads))
    x = x + attended
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


@pytest.mark.parametrize(
    ("side", "window", "shift"), [(1, 1, 0), (4, 4, 0), (7, 7, 0), (8, 4, 2), (16, 6, 3), (14, 7, 3)]
)
def test_clamped_windows_are_evenly_wide_and_shift_only_where_there_are_several(side, window, shift):
    stage = SwinStage(4, 1, 7, None, mlp_ratio=1.0, drop_path=(0.0,), downsample=False)
    assert stage.window_and_shift(side) == (window, shift)


@pytest.mark.parametrize(
    ("window_size", "windows", "shifts"), [(7, [7, 7, 7, 7], [3, 3, 3, 0]), (14, [14, 14, 14, 7], [7, 7, 0, 0])]
)
def test_reference_windows_are_those_of_224_px(window_size, windows, shifts):
    network = Swin(1, SwinOptions(2, num_heads=(1, 1, 1, 1), window_size=window_size, padding="reference"))
    assert [stage.window_and_shift(1) for stage in network.layers] == list(zip(windows, shifts, strict=True))


def test_reference_windows_are_those_of_the_size_it_was_built_for():
    """At 128 px its maps have 32, 16, 8 and 4 tokens: the last is one window of 4, which shifts none."""
    options = SwinOptions(2, num_heads=(1, 1, 1, 1), padding="reference", reference_size=128)
    network = Swin(1, options)
    assert [stage.window_and_shift(1) for stage in network.layers] == [(7, 3), (7, 3), (7, 3), (4, 0)]
    assert network.layers[-1].blocks[0].attn.relative_position_bias_table.shape == (49, 1)


def test_drop_path_rises_linearly_over_all_blocks():
    network = Swin(1, SwinOptions(2, depths=(1, 2, 2), num_heads=(1, 1, 1), drop_path=0.4))
    first, *others = [block.drop_path1 for stage in network.layers for block in stage.blocks]
    assert isinstance(first, torch.nn.Identity)
    np.testing.assert_allclose([drop.drop_prob for drop in others], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_a_size_off_the_patch_is_refused_with_the_nearest_one():
    with pytest.raises(InputError, match=r"image size 65x150 px .* patch_size=4; use 64x152 px"):
        Swin(1, SwinOptions(4, depths=(1, 1), num_heads=(1, 1)))(torch.zeros(1, 1, 65, 150))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "zeros"}, "padding='zeros' should be 'clamp' or 'reference'"),
        ({"depths": (2,), "num_heads": (1,)}, "2 to 4 stages"),
        ({"depths": (2, 2), "num_heads": (1, 2, 4)}, "2 to 4 stages"),
        (
            {"embed_dim": 10, "depths": (1, 1), "num_heads": (3, 2)},
            r"\[10, 20\] are not multiples of num_heads=\[3, 2\]",
        ),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Swin(1, SwinOptions(**arguments))
