"""The BEiT is timm's, for the one size it is built for."""

import pytest
import torch
from parity import formula_image, formula_weights
from timm.models.beit import Beit

from ssl_lens.backbones.beit import BEiT, BEiTOptions
from ssl_lens.errors import InputError


def test_beit_base_has_the_published_parameters():
    with torch.device("meta"):
        network = BEiT(3)
        parameters = [*network.parameters(), *network.head(1000).parameters()]
    assert sum(p.numel() for p in parameters) == 86_530_984


@pytest.mark.parametrize(
    ("depth", "width", "size"),
    [(2, 768, (224, 224)), (3, 24, (64, 96)), pytest.param(12, 768, (224, 224), marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_it_equals_timms_on_the_same_weights(depth, width, size):
    theirs = Beit(
        img_size=size,
        embed_dim=width,
        depth=depth,
        num_heads=12,
        num_classes=0,
        use_abs_pos_emb=False,
        use_rel_pos_bias=True,
        init_values=0.1,
    )
    theirs = theirs.double().eval()
    theirs.load_state_dict(formula_weights(theirs))
    ours = BEiT(3, BEiTOptions(width, depth, image_size=size)).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = formula_image(1, 3, *size)
    view, regions, _ = ours(images)
    torch.testing.assert_close(view, theirs(images), atol=1e-9, rtol=0)
    tokens = theirs.forward_features(images)[:, 1:]
    torch.testing.assert_close(regions, theirs.fc_norm(tokens), atol=1e-9, rtol=0)


@torch.no_grad()
def test_a_new_network_starts_as_timms_does():
    torch.manual_seed(0)
    theirs = Beit(img_size=32, embed_dim=192, depth=3, num_heads=3, use_abs_pos_emb=False, init_values=0.1)
    ours = BEiT(3, BEiTOptions(192, 3, 3, image_size=32))
    for name, parameter in ours.named_parameters():
        if name in theirs.state_dict() and parameter.numel() > 10_000:
            torch.testing.assert_close(parameter.std(), theirs.state_dict()[name].std(), rtol=0.05, atol=0)


@torch.no_grad()
def test_regions_are_the_last_map_row_by_row():
    network = BEiT(1, BEiTOptions(8, 5, 2, patch_size=4, image_size=(8, 12))).eval()
    images = torch.randn(2, 1, 8, 12)
    maps = network.stages(images)
    assert [stage.shape for stage in maps] == [(2, 8, 2, 3)] * 4
    torch.testing.assert_close(network(images).regions, maps[-1].flatten(2).mT)
    assert BEiT.from_config(network.config()).map_size(8, 12) == (2, 3)


def test_every_other_size_is_refused_in_one_line():
    network = BEiT(1, BEiTOptions(8, 1, 2, patch_size=4, image_size=16))
    assert network.accepted_sizes == "16x16 px, as built"
    with pytest.raises(InputError, match="8x16 px .* built for 16x16 px .* with image_size") as error:
        network(torch.zeros(1, 1, 8, 16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, "100x100 px of the BEiT .* patch_size=16; use 96x96 px"),
        ({"num_heads": 5}, "embed_dim=768 is not a multiple of num_heads=5"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        BEiT(1, BEiTOptions(**arguments))
