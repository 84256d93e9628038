"""Blocks that are computed again in backward: the same numbers, drop path included, and less kept."""

import pytest
import torch
from kept import kept_bytes

from ssl_lens.backbones import catalog
from ssl_lens.backbones.layers.blocks import checkpoint_blocks

NAMES = ["swin_micro", "vit_small", "crossformer_tiny", "regionvit_tiny", "twins_svt", "cvt_windowed", "cvt_13"]
OPTIONS = {
    "vit_small": {"depth": 2, "embed_dim": 24, "num_heads": 2},
    "crossformer_tiny": {"depths": [1, 2], "num_heads": [2, 2], "embed_dim": 16},
    "regionvit_tiny": {"depths": [1, 2], "num_heads": [2, 2], "embed_dim": 16},
    "twins_svt": {"embed_dim": [8, 16], "depths": [2, 2], "num_heads": [1, 2], "reductions": [2, 1]},
    "cvt_windowed": {"dims": [8, 16], "kernel_sizes": [7, 3], "strides": [4, 2], "num_heads": [1, 2], "depths": [1, 2]},
    "cvt_13": {"dims": [8, 16], "kernel_sizes": [7, 3], "strides": [4, 2], "num_heads": [1, 2], "depths": [1, 2]},
}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_same_and_less_is_kept(name: str) -> None:
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        options = {**OPTIONS.get(name, {}), "drop_path": 0.5}
        network = catalog.build_backbone(name, options, in_channels=1, image_size=32)
        if checkpointing:
            assert checkpoint_blocks(network)
        torch.manual_seed(1)
        kept = kept_bytes(lambda network=network: network(images), besides=network.parameters())
        torch.manual_seed(1)
        network(images).regions.square().sum().backward()
        seen.append((sum(kept.values()), [parameter.grad for parameter in network.parameters()]))
    (all_kept, expected), (kept_of_blocks, gradients) = seen
    assert kept_of_blocks < 0.7 * all_kept
    for gradient, other in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, other)


def test_a_network_without_blocks_says_so() -> None:
    assert not checkpoint_blocks(catalog.build_backbone("resnet_micro", {}, in_channels=1, image_size=32))
