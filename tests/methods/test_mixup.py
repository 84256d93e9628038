"""Mixtures are what their parts say."""

import torch

from ssl_lens.methods.mixup import mix_views
from ssl_lens.views.multicrop import Views


def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    sizes = ((2, 5, 1, 8, 8), (3, 5, 1, 4, 4))
    crops = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
    return Views(crops[0], (crops[1],))


def test_a_mixture_is_the_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    mixed, parts = mix_views(views(), alpha=0.8)
    assert parts.shape == (5, 5, 5)
    torch.testing.assert_close(parts.sum(dim=1), torch.ones(5, 5, dtype=torch.float64))
    for crops, originals, mine in ((mixed.global_crops, views().global_crops, parts[:2]),
                                   (mixed.local_crops[0], views().local_crops[0], parts[2:])):  # fmt: skip
        expected = torch.einsum("vbm,vbchw->vmchw", mine, originals)
        torch.testing.assert_close(crops, expected)


def test_every_view_has_a_share_of_its_own_and_the_seed_decides() -> None:
    torch.manual_seed(0)
    shares = mix_views(views(), alpha=0.8)[1][:, 0, 0]
    assert len(set(shares.tolist())) == 5
    assert ((shares >= 0) & (shares <= 1)).all()
    torch.manual_seed(0)
    assert torch.equal(mix_views(views(), alpha=0.8)[1][:, 0, 0], shares)
    torch.manual_seed(1)
    assert not torch.equal(mix_views(views(), alpha=0.8)[1][:, 0, 0], shares)
