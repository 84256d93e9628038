"""Views of several renderings: which one each shows, and that the policy `renderings` changes none."""

import torch

from ssl_lens.views.geometry import LensSafe
from ssl_lens.views.multicrop import MultiCrop, views_of_features
from ssl_lens.views.photometry import Effect, Photometry
from ssl_lens.views.policy import Sky
from ssl_lens.views.renderings import RenderingsPolicy
from ssl_lens.views.section import Views


def renderings(k: int, side: int = 20) -> torch.Tensor:
    return torch.randn(5, k, 2, side, side, generator=torch.Generator().manual_seed(0))


def test_views_are_the_renderings_as_they_are_in_turn_over_the_epochs():
    section = Views(policy="renderings", global_size=20, local_sizes=(12,), local_counts=(3,))
    sky = Sky(torch.zeros(2), torch.ones(5, 3, 2))
    make, images = section.multicrop(torch.asinh, (0.0, 1.0), sky=sky), renderings(3)
    for epoch in range(4):
        views = make(images, torch.arange(5), seed=1, epoch=epoch)
        for number, view in enumerate(views.global_crops):
            torch.testing.assert_close(view, images[:, (number + epoch) % 3].asinh(), rtol=0, atol=1e-5)
        for number, view in enumerate(views.local_crops[0]):
            shown = images[:, (2 + number + epoch) % 3, :, 4:-4, 4:-4]
            torch.testing.assert_close(view, shown.asinh(), rtol=0, atol=1e-5)


def test_other_policies_change_each_rendering_as_they_would_an_image():
    """A view of a rendering is the view that its image alone would give, bit for bit."""
    make = MultiCrop(LensSafe(), flux_effects=Photometry(), global_size=16, local_sizes=(8,), local_counts=(2,))
    images, index = renderings(2), torch.arange(5)
    both = make(images, index, seed=3, epoch=1)
    alone = [make(images[:, k], index, seed=3, epoch=1) for k in range(2)]
    for number in range(2):
        assert torch.equal(both.global_crops[number], alone[(number + 1) % 2].global_crops[number])
        assert torch.equal(both.local_crops[0][number], alone[(number + 1) % 2].local_crops[0][number])
    assert not torch.equal(both.global_crops[0], alone[0].global_crops[0])


def test_every_view_has_the_noise_of_the_rendering_that_it_shows():
    noise = torch.arange(1.0, 31).view(5, 3, 2)
    noisy = Photometry(*[Effect(1.0, 1.0, 0.0)] * 3, noise_ratio=Effect(1.0, 1.0, 1.0))
    make = MultiCrop(
        LensSafe(),
        flux_effects=noisy,
        global_size=32,
        local_sizes=(32,),
        local_counts=(2,),
        sky=Sky(torch.zeros(2), noise),
    )
    index = torch.tensor([4, 0, 3])
    for epoch in range(2):
        views = make(torch.zeros(3, 3, 2, 32, 32), index, seed=0, epoch=epoch)
        for number, view in enumerate(torch.cat(views.all()[:1] + views.local_crops)):
            own = noise[index, (number + epoch) % 3]
            assert (view.std((2, 3)) / own - 1).abs().max() < 0.1


def test_features_are_chosen_as_the_renderings_are():
    features = torch.arange(30.0).view(5, 3, 2)
    for epoch in range(3):
        views = views_of_features(features, epoch)
        assert torch.equal(views.global_crops, torch.stack([features[:, epoch % 3], features[:, (1 + epoch) % 3]]))
        assert views.local_crops == ()


def test_only_this_policy_leaves_pixels_alone():
    section = Views()
    policies = {name: getattr(section, name) for name in ("lens_safe", "imagenet", "renderings")}
    assert [name for name, policy in policies.items() if not policy.changes_pixels] == ["renderings"]
    assert RenderingsPolicy().margin_px(20) == 0
