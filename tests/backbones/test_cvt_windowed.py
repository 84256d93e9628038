"""EsViT's windowed CvT against the reference's numbers, and its windows written out pixel by pixel."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import formula_image, formula_weights
from torch.nn import functional as F

from ssl_lens.backbones.cvt_windowed import CvTWindowed, CvTWindowedOptions, WindowBlock, Windows
from ssl_lens.errors import InputError

FIXTURE = Path(__file__).parent / "fixtures" / "cvt_windowed.npz"


def small(padding: str = "clamp") -> CvTWindowed:
    return CvTWindowed(
        2,
        CvTWindowedOptions(
            (4, 6, 8, 12), num_heads=(1, 2, 2, 3), depths=(1, 1, 2, 1), window_size=3, mlp_ratio=2.0, padding=padding
        ),
    )


def test_cvt_tiny_has_the_published_parameters():
    network = CvTWindowed(3)
    assert sum(p.numel() for p in network.parameters()) == 29_303_616
    assert sum(p.numel() for p in network.head(1000).parameters()) == 768 * 1000 + 1000


def golden_network(data: dict[str, np.ndarray]) -> CvTWindowed:
    config = json.loads(str(data["config"]))
    network = CvTWindowed(
        3,
        CvTWindowedOptions(
            config["DIM_EMBED"],
            config["PATCH_SIZE"],
            config["PATCH_STRIDE"],
            config["NUM_HEADS"],
            config["DEPTH"],
            window_size=config["WINDOW_SIZE"][0],
            mlp_ratio=config["MLP_RATIO"][0],
            drop_path=config["DROP_PATH_RATE"],
            padding="reference",
        ),
    )
    weights = {
        our_name(key.removeprefix("param/")): torch.from_numpy(data[key]) for key in data if key.startswith("param/")
    }
    network.load_state_dict(weights, strict=True)
    return network.double()


def our_name(name: str) -> str:
    """The reference counts layers within a stage, a block and a convolution; ours have names."""
    for theirs, ours in (
        (r"^stage(\d)\.0\.", r"layers.\1.patch_embed."),
        (r"^stage(\d)\.1\.layers\.(\d)\.0\.fn\.", r"layers.\1.blocks.\2.attn."),
        (r"^stage(\d)\.1\.layers\.(\d)\.0\.norm", r"layers.\1.blocks.\2.norm1"),
        (r"^stage(\d)\.1\.layers\.(\d)\.1\.norm", r"layers.\1.blocks.\2.norm2"),
        (r"^stage(\d)\.1\.layers\.(\d)\.1\.fn\.net\.0", r"layers.\1.blocks.\2.mlp.fc1"),
        (r"^stage(\d)\.1\.layers\.(\d)\.1\.fn\.net\.2", r"layers.\1.blocks.\2.mlp.fc2"),
        (r"\.qkv\.dw\.", ".qkv.0."),
        (r"\.qkv\.bn\.", ".qkv.1."),
        (r"\.qkv\.pw\.", ".qkv.2."),
        (r"\.proj_out\.", ".proj."),
    ):
        name = re.sub(theirs, ours, name)
    return name


@torch.no_grad()
def test_it_reproduces_the_reference_backbone_in_training_and_evaluation(golden: Path):
    data = np.load(golden / "cvt_backbone.npz", allow_pickle=False)
    network = golden_network(data)
    crops = [torch.from_numpy(data[f"crop{i}"]).double() for i in range(4)]
    groups = torch.cat(crops[:2]), torch.cat(crops[2:])
    for mode in ("train", "eval"):
        features = [network.train(mode == "train")(group) for group in groups]
        assert [f.regions.shape[1] for f in features] == data["npatch"].tolist()
        _close(torch.cat([f.view for f in features]), data[f"view_features_{mode}"])
        _close(torch.cat([f.regions.flatten(0, 1) for f in features]), data[f"region_features_{mode}"])
        buffers = dict(network.named_buffers())
        for key in data:
            if key.startswith("buffer_after/"):
                _close(buffers[our_name(key.removeprefix("buffer_after/"))], data[key])
    _close(network.last_blocks(crops[0], 4), data["last4_blocks_global0_eval"])


def _close(ours: torch.Tensor, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize("padding", ["clamp", "reference"])
@torch.no_grad()
def test_it_keeps_the_numbers_it_had_when_it_met_the_reference(padding):
    network = small(padding).double().eval()
    network.load_state_dict(formula_weights(network))
    stored = np.load(FIXTURE, allow_pickle=False)
    maps = network.stages(formula_image(2, 2, 36, 44))
    for i, stage_map in enumerate(maps):
        np.testing.assert_allclose(stage_map.numpy(), stored[f"{padding}_{i}"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("see_padding", [False, True])
@pytest.mark.parametrize("size", [(5, 5), (4, 7), (2, 3), (1, 2)])
@torch.no_grad()
def test_windows_are_those_written_out_pixel_by_pixel(size, see_padding):
    torch.manual_seed(0)
    block = WindowBlock(6, 2, mlp_ratio=1.0, drop_path=0.0, see_padding=see_padding).double()
    for parameter in block.parameters():
        parameter.normal_()
    block.train()  # the batch's own statistics: padding shows in them
    x = torch.randn(1, 6, *size, dtype=torch.float64)
    windows = (Windows.square if see_padding else Windows.evenly_wide)(size, 3)
    expected = _pixel_by_pixel(block, x, windows.size, see_padding)
    torch.testing.assert_close(block(x, windows), expected, atol=1e-10, rtol=0)


def _pixel_by_pixel(block: WindowBlock, x, window, see_padding):
    """Each pixel attends to those of its window; the padding is there only where it is seen."""
    height, width = x.shape[2:]
    normed = block.norm1(x)
    if see_padding:
        normed = F.pad(normed, (0, -width % window[1], 0, -height % window[0]))
    query, key, value = block.attn.qkv(normed).view(3, 2, 3, *normed.shape[2:])
    pixels = [(i, j) for i in range(normed.shape[2]) for j in range(normed.shape[3])]
    attended = torch.zeros_like(x)
    for i in range(height):
        for j in range(width):
            mates = [p for p in pixels if (p[0] // window[0], p[1] // window[1]) == (i // window[0], j // window[1])]
            for head in range(2):
                scores = torch.stack([query[head, :, i, j] @ key[head, :, m, n] for m, n in mates]) / 6**0.5
                values = torch.stack([value[head, :, m, n] for m, n in mates])
                attended[0, 3 * head : 3 * head + 3, i, j] = scores.softmax(dim=0) @ values
    x = x + block.attn.proj(attended)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize(
    ("side", "count", "size"), [(1, 1, 1), (7, 1, 7), (8, 2, 4), (16, 3, 6), (24, 4, 6), (57, 9, 7)]
)
def test_windows_are_evenly_wide(side, count, size):
    assert Windows.evenly_wide((side, 1), 7) == ((count, 1), (size, 1))


def test_windows_are_cut_and_joined_without_loss():
    windows = Windows((2, 3), (4, 5))
    x = torch.randn(2, 3, 8, 15)
    torch.testing.assert_close(windows.join(windows.cut(x)), x, atol=0, rtol=0)


@pytest.mark.parametrize("padding", ["clamp", "reference"])
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 50), (64, 64)])
@torch.no_grad()
def test_any_size_gives_the_map_it_announces(size, padding):
    network = small(padding).eval()
    maps = network.stages(torch.randn(1, 2, *size))
    assert maps[-1].shape[2:] == network.map_size(*size) == (-(-size[0] // 32), -(-size[1] // 32))
    assert maps[-1].isfinite().all()


def test_drop_path_rises_linearly_over_all_blocks():
    network = CvTWindowed(1, CvTWindowedOptions((2, 2), (3, 3), (2, 2), (1, 1), (2, 3), drop_path=0.4))
    first, *others = [block.drop_path for stage in network.layers for block in stage.blocks]
    assert isinstance(first, torch.nn.Identity)
    np.testing.assert_allclose([drop.drop_prob for drop in others], [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "zeros"}, "padding='zeros' should be 'clamp' or 'reference'"),
        ({"depths": (2, 2)}, r"depths=\[2, 2\] of the CvT do not fit; give each one value per stage"),
        ({"num_heads": (1, 3, 6, 11)}, r"not multiples of num_heads=\[1, 3, 6, 11\]"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CvTWindowed(1, CvTWindowedOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match=r"image size 0x64 px is empty; use 1 px or more"):
        small()(torch.zeros(1, 2, 0, 64))
