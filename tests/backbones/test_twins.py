"""The Twins-SVT is timm's where nothing is padded, and takes any size."""

import pytest
import timm
import torch
from parity import formula_image, formula_weights

from ssl_lens.backbones.twins import SubsampledAttention, TwinsOptions, TwinsSVT, WindowAttention
from ssl_lens.errors import InputError


def small(**arguments) -> TwinsSVT:
    torch.manual_seed(0)
    widths = {"embed_dim": (8, 16, 24), "depths": (2, 2, 3), "num_heads": (1, 2, 3), "reductions": (4, 2, 1)}
    return TwinsSVT(2, TwinsOptions(**widths | arguments)).eval()


def test_twins_svt_small_has_the_published_parameters():
    with torch.device("meta"):
        network = TwinsSVT(3)
        parameters = [*network.parameters(), *network.head(1000).parameters()]
    assert sum(p.numel() for p in parameters) == 24_060_776


@torch.no_grad()
def test_it_equals_timms_on_the_same_weights():
    theirs = timm.create_model("twins_svt_small", num_classes=0).double().eval()
    theirs.load_state_dict(formula_weights(theirs))
    ours = TwinsSVT(3).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = formula_image(1, 3, 224, 224)
    view, regions, _ = ours(images)
    torch.testing.assert_close(view, theirs(images), atol=1e-9, rtol=0)
    torch.testing.assert_close(regions, theirs.forward_features(images), atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [(224, 224), (64, 64), (32, 32), (65, 97), (150, 40), (4, 4), (1, 3)])
@torch.no_grad()
def test_any_size_gives_maps_of_ceil_size(size):
    network = small()
    maps = network.stages(torch.randn(2, 2, *size))
    assert [stage.shape[2:] for stage in maps] == [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16)]
    assert maps[-1].shape[2:] == network.map_size(*size)
    assert all(stage.isfinite().all() for stage in maps)


@pytest.mark.parametrize("grad", [False, True])  # two kernels
@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 9), (16, 3), (29, 8)])
def test_padding_has_no_part_in_the_windows(height, width, grad):
    torch.manual_seed(0)
    attention = WindowAttention(6, num_heads=2, window_size=7).double()
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(attention(x), window_loops(attention, x), atol=1e-12, rtol=0)


def window_loops(attention: WindowAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention within each window's tokens on the map, one window at a time."""
    result = torch.empty_like(x)
    for rows in window_slices(x.shape[1]):
        for columns in window_slices(x.shape[2]):
            tokens = x[:, rows, columns]
            query, key, value = attention.qkv(tokens.flatten(1, 2)).chunk(3, dim=2)
            heads = []
            for head in (slice(0, 3), slice(3, 6)):
                weights = (query[..., head] @ key[..., head].mT / 3**0.5).softmax(dim=-1)
                heads.append(weights @ value[..., head])
            result[:, rows, columns] = attention.proj(torch.cat(heads, dim=2)).view_as(tokens)
    return result


def window_slices(side: int) -> list[slice]:
    """Windows of at most 7 tokens and of one width, the last one cut off by the map."""
    window = next(w for w in range(1, 8) if w * -(-side // 7) >= side)
    return [slice(start, start + window) for start in range(0, side, window)]


@torch.no_grad()
def test_what_the_subsampling_leaves_over_is_still_seen():
    torch.manual_seed(0)
    attention = SubsampledAttention(6, num_heads=2, reduction=4).double()
    x = torch.randn(1, 5, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4, 5] += 1
    assert (attention(changed) - attention(x))[:, 0, 0].abs().max() > 1e-6
    padded = torch.zeros(1, 8, 8, 6, dtype=torch.float64)
    padded[:, :5, :6] = x
    torch.testing.assert_close(attention(x), attention(padded)[:, :5, :6], atol=1e-12, rtol=0)


@torch.no_grad()
def test_the_stages_end_with_the_normed_regions():
    network = small()
    images = torch.randn(2, 2, 40, 56)
    view, regions, _ = network(images)
    torch.testing.assert_close(regions.mean(dim=1), view)
    torch.testing.assert_close(regions.mean(dim=2), torch.zeros(2, regions.shape[1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1, 1)}, "depths=\\[1, 1\\].* give each as many stages"),
        ({"num_heads": (3, 2, 3)}, "are not multiples of num_heads=\\[3, 2, 3\\]"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        small(**arguments)


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match="0x4 px is empty; use 1 px or more"):
        small().map_size(0, 4)
