"""Plain stems: the downsampling that commutes with turns, the folded stem, and a backbone behind one."""

import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.models.resnet import ResNet
from ssl_lens.models.stem import AntialiasedDownsample, FoldedStem, StemmedBackbone
from ssl_lens.models.swin import Swin


@torch.no_grad()
def test_downsampling_averages_with_binomial_weights_centred_on_the_map():
    halve = AntialiasedDownsample()
    impulse = torch.zeros(1, 1, 6, 5)
    impulse[0, 0, 2, 2] = 1
    rows = torch.tensor([1.0, 3.0, 0.0]) / 8  # even: outputs lie between pixels 0|1, 2|3, 4|5
    columns = torch.tensor([1.0, 6.0, 1.0]) / 16  # odd: outputs lie on pixels 0, 2, 4
    torch.testing.assert_close(halve(impulse)[0, 0], rows[:, None] * columns, atol=1e-7, rtol=0)


@pytest.mark.parametrize("size", [(6, 6), (7, 7), (6, 7), (2, 5)])
@torch.no_grad()
def test_downsampling_commutes_with_turns_and_keeps_a_flat_map(size):
    torch.manual_seed(0)
    halve = AntialiasedDownsample().double()
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    small = halve(images)
    assert small.shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    torch.testing.assert_close(halve(images.rot90(1, (2, 3))), small.rot90(1, (2, 3)), atol=1e-14, rtol=0)
    torch.testing.assert_close(halve(images.flip(2)), small.flip(2), atol=1e-14, rtol=0)
    assert halve(torch.ones(1, 1, 9, 9, dtype=torch.float64))[0, 0, 2, 2] == 1


@torch.no_grad()
def test_group_pooling_takes_the_maximum_over_a_fields_elements():
    stem = FoldedStem(1, fields=2, group_order=3, depth=1, kernel_size=1, downsample=1)
    stem.layers[0].weight.copy_(torch.tensor([1.0, 5, 2, -1, -3, -2]).view(6, 1, 1, 1))
    stem.layers[0].bias.zero_()
    assert stem(torch.ones(1, 1, 1, 1)).flatten().tolist() == [5, 0]  # max(1, 5, 2); max(-1, -3, -2), then ReLU
    assert stem(-torch.ones(1, 1, 1, 1)).flatten().tolist() == [0, 3]


def test_folded_stem_is_rebuilt_from_its_configuration():
    stem = FoldedStem(2, fields=3, group_order=4, depth=2, kernel_size=5, downsample=2)
    again = FoldedStem(**stem.config())
    again.load_state_dict(stem.state_dict(), strict=True)
    images = torch.randn(1, 2, 9, 9)
    torch.testing.assert_close(again(images), stem(images), atol=0, rtol=0)
    assert stem.fold() is stem


def test_folding_copies_the_backbone_and_leaves_it_as_it_was():
    backbone = StemmedBackbone(FoldedStem(1, 2, 4, 1, 3, 1), ResNet(2, width=2, depths=(1,))).train()
    folded = backbone.fold()
    assert backbone.training
    assert not folded.training
    assert folded.backbone is not backbone.backbone
    assert folded.stem is not backbone.stem


def test_channels_that_do_not_meet_are_refused():
    with pytest.raises(InputError, match="stem gives 2 channels but the backbone takes 1; .* in_channels=2"):
        StemmedBackbone(FoldedStem(1, 2, 4, 1, 3, 1), ResNet(1, width=2, depths=(1,)))


def test_a_size_off_the_patch_is_refused_with_image_and_map():
    backbone = Swin(2, 4, depths=(1, 1), num_heads=(1, 1))
    stemmed = StemmedBackbone(FoldedStem(1, 2, 4, 1, 3, downsample=2), backbone)
    with pytest.raises(InputError, match="behind the stem a 65x65 px image is a map: image size 33x33 px"):
        stemmed(torch.zeros(1, 1, 65, 65))
    assert stemmed.map_size(64, 64) == (4, 4)
