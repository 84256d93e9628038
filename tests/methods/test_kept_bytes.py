"""What a step of a full-size network keeps for backward: it decides which batch fits a card."""

import pytest
import torch
from kept import kept_bytes

from ssl_lens.backbones.swin import Swin, SwinOptions
from ssl_lens.methods.dino import DINO, DINOOptions
from ssl_lens.views.multicrop import Views

MIB = 2**20


def of_an_image(backbone: SwinOptions, out_dim: int) -> float:
    """Bytes that EsViT keeps in bfloat16 for one image more of 2 x 64 px and 8 x 32 px."""
    torch.manual_seed(0)
    options = DINOOptions(out_dim=out_dim, centering="sinkhorn", ema_momentum=0.99)
    method = DINO(Swin(1, backbone), options)
    besides = [*method.parameters(), *method.buffers()]

    def kept(n_images: int) -> int:
        views = Views(torch.randn(2, n_images, 1, 64, 64), (torch.randn(8, n_images, 1, 32, 32),))
        method.start_step()
        with torch.autocast("cpu", torch.bfloat16):
            by_dtype = kept_bytes(lambda: method.losses(views, method.schedule(1, 1).at(0)), besides=besides)
        return sum(by_dtype.values())

    return kept(2) - kept(1)  # without what is made of the weights alone


def test_an_image_keeps_36_mib() -> None:
    """88 with plain layers; of esvit_swin's network, which has 10 blocks of up to 4,096 tokens."""
    assert of_an_image(SwinOptions(patch_size=2, window_size=8, stages=3), 4096) < 36 * MIB


def test_of_a_prototype_the_logits_are_kept_in_bfloat16_and_little_else() -> None:
    """2 bytes for each of 256 regions, of 128 of the teacher and 10 views, and 4 for the targets of 2 views."""
    small = SwinOptions(8, depths=(1, 1, 1), num_heads=(1, 1, 1), patch_size=2, window_size=8)
    more = (of_an_image(small, 2048) - of_an_image(small, 1024)) / 1024
    assert more == pytest.approx(2 * (256 + 128 + 10) + 4 * 2, rel=0.01)
