"""The ViT is timm's and DINO's ViT-S/16, and reads other sizes and smaller patches."""

import pytest
import torch
from parity import formula_image, formula_weights
from timm.models.vision_transformer import VisionTransformer

from ssl_lens.backbones.steerable.stem import Stem, StemmedBackbone, StemOptions
from ssl_lens.backbones.vit import LayerNorm, ViT, ViTOptions
from ssl_lens.errors import InputError


def timms(depth: int) -> VisionTransformer:
    """timm's ViT-S/16 in evaluation mode, with weights by formula."""
    network = VisionTransformer(embed_dim=384, depth=depth, num_heads=6, num_classes=0, dynamic_img_size=True)
    assert network.norm.eps == LayerNorm(1).eps
    return _with_formula_weights(network)


def small(in_channels: int = 2, **arguments) -> ViT:
    torch.manual_seed(0)
    small = {"embed_dim": 8, "depth": 3, "num_heads": 2, "patch_size": 4, "image_size": 16}
    return ViT(in_channels, ViTOptions(**small | arguments))


def test_vit_small_has_the_published_parameters():
    with torch.device("meta"):
        network = ViT(3)
        parameters = [*network.parameters(), *network.head(1000).parameters()]
    assert sum(p.numel() for p in parameters) == 22_050_664


@pytest.mark.parametrize("depth", [2, pytest.param(12, marks=pytest.mark.slow)])
@torch.no_grad()
def test_it_equals_timms_on_the_same_weights(depth):
    theirs, ours = timms(depth), ViT(3, ViTOptions(depth=depth)).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for size, tolerance in (((224, 224), 1e-9), ((96, 64), 1e-5)):  # timm interpolates positions in float32
        images = formula_image(1, 3, *size)
        expected = theirs.forward_features(images)
        view, regions, _ = ours(images)
        torch.testing.assert_close(view, expected[:, 0], atol=tolerance, rtol=0)
        torch.testing.assert_close(regions, expected[:, 1:], atol=tolerance, rtol=0)


@torch.no_grad()
def test_gradients_and_inference_use_the_same_attention():
    network = small().eval()
    images = torch.randn(2, 2, 16, 20)
    without = network(images).regions
    with torch.enable_grad():
        torch.testing.assert_close(network(images).regions, without, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("patch_size", "size"), [(1, (5, 8)), (2, (10, 6)), (8, (32, 32)), (16, (64, 96)), (16, (16, 16))]
)
@torch.no_grad()
def test_any_multiple_of_any_patch_is_read(patch_size, size):
    network = small(patch_size=patch_size, image_size=4 * patch_size).eval()
    map_size = network.map_size(*size)
    assert map_size == (size[0] // patch_size, size[1] // patch_size)
    maps = network.stages(torch.randn(2, 2, *size))
    assert [stage.shape for stage in maps] == [(2, 8, *map_size)] * 3
    assert network(torch.randn(2, 2, *size)).regions.shape == (2, map_size[0] * map_size[1], 8)


@torch.no_grad()
def test_regions_are_the_last_map_row_by_row():
    network = small().eval()
    images = torch.randn(2, 2, 12, 20)
    torch.testing.assert_close(network(images).regions, network.stages(images)[-1].flatten(2).mT)


@torch.no_grad()
def test_a_deep_network_gives_a_map_for_each_quarter():
    network = small(depth=8).eval()
    images = torch.randn(1, 2, 16, 16)
    after_two = network._block_tokens(images)[1][:, 1:].mT.unflatten(2, (4, 4))
    assert len(network.stages(images)) == 4
    torch.testing.assert_close(network.stages(images)[0], after_two)


@torch.no_grad()
def test_the_last_blocks_end_with_the_view():
    network = small().eval()
    images = torch.randn(2, 2, 16, 16)
    features = network.last_blocks(images, 2)
    assert features.shape == (2, 16)
    torch.testing.assert_close(features[:, 8:], network(images).view)


def test_the_same_number_of_patches_in_another_shape_has_other_positions():
    network = small()
    assert network._positions((2, 8)).shape == network.pos_embed.shape
    assert not torch.allclose(network._positions((2, 8)), network.pos_embed, atol=1e-3)


@torch.no_grad()
def test_it_works_behind_a_stem_that_halves():
    stem = Stem(1, StemOptions("C4", fields=3, kernel_size=3, downsample=2))
    network = StemmedBackbone(stem, small(in_channels=3, patch_size=2, image_size=8)).eval()
    assert network.stages(torch.randn(1, 1, 20, 12))[-1].shape == (1, 8, 5, 3)


@pytest.mark.parametrize(
    ("arguments", "size", "message"),
    [
        ({"image_size": 18}, None, "18x18 px of the ViT .* patch_size=4; use 16x16 px"),
        ({"num_heads": 3}, None, "embed_dim=8 is not a multiple of num_heads=3"),
        ({}, (16, 21), "16x21 px of the ViT is not a multiple of patch_size=4; use 16x20 px"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, size, message):
    with pytest.raises(InputError, match=message) as error:
        small(**arguments)(torch.zeros(1, 2, *size))
    assert "\n" not in str(error.value)


def _with_formula_weights(network: VisionTransformer) -> VisionTransformer:
    network = network.double().eval()
    network.load_state_dict(formula_weights(network))
    return network
