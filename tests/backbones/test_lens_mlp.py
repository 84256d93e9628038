"""A perceptron on fixed features: what is fixed, what its domain changes, and what it takes."""

import pytest
import torch

from ssl_lens.backbones.layers.angular import angular_power
from ssl_lens.backbones.layers.rings import ring_statistics
from ssl_lens.backbones.lens_mlp import LensMLP, LensMLPOptions
from ssl_lens.backbones.lens_wavelets import LensWavelets
from ssl_lens.errors import InputError


def network(channels: int = 1, **options: float) -> LensMLP:
    torch.manual_seed(0)
    return LensMLP(channels, LensMLPOptions(**options)).eval()


def images(count: int = 3, channels: int = 1, side: int = 56) -> torch.Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3])
def test_fixed_features_are_those_of_the_wavelets(channels):
    maps = LensWavelets(channels).stages(images(channels=channels))
    plain = torch.cat([part(each) for part in (ring_statistics, angular_power) for each in maps], dim=1)
    expected = torch.where(plain < 0, -(1 - 30 * plain).log(), (1 + 30 * plain).log())
    features = network(channels).fixed_features(images(channels=channels))
    assert features.shape == (3, 936 * channels)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_features_in_the_place_of_images_say_the_same():
    model = network()
    whole, kept = model(images()), model(model.fixed_features(images()))
    assert torch.equal(whole.view, kept.view)
    assert torch.equal(whole.regions, kept.regions)
    assert whole.view.std() > 0.01


@torch.no_grad()
def test_a_domain_of_another_level_and_scatter_is_not_seen():
    """Every number of the fixed features is standardised by those of the images at hand."""
    model, features = network(), torch.randn(40, 936, generator=torch.Generator().manual_seed(2))
    model.set_domain(features)
    expected = model(features).view
    moved = 3 * features + torch.linspace(-5, 5, 936)
    assert (model(moved).view - expected).abs().max() > 0.1
    model.set_domain(moved)
    torch.testing.assert_close(model(moved).view, expected, rtol=1e-3, atol=1e-3)
    other = network()
    other.take_domain(model)
    assert torch.equal(other(moved).view, model(moved).view)


@pytest.mark.parametrize(("smallest_std", "standardised"), [(0.03, (1.0, 1 / 3)), (0.001, (1.0, 1.0))])
def test_numbers_that_hardly_vary_are_not_enlarged(smallest_std, standardised):
    """The first number varies by .06, the second by .01."""
    model = network(smallest_std=smallest_std)
    features = torch.tensor([[0.06, 0.01], [-0.06, -0.01]]).repeat(1, 468)
    model.set_domain(features)
    torch.testing.assert_close((features[0] / model.std)[:2], torch.tensor(standardised))


def test_a_number_that_is_the_same_for_all_images_stays_finite():
    model = network()
    model.set_domain(torch.ones(5, 936))
    assert model(torch.ones(1, 936)).view.isfinite().all()


@torch.no_grad()
def test_turns_and_flips_change_nothing():
    model = network()
    model.set_domain(model.fixed_features(images(40)))
    expected = model(images()).view
    for turned in (images().rot90(1, (2, 3)), images().flip(2), images().mT):
        torch.testing.assert_close(model(turned).view, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("octaves", "smallest"), [(4, 45), (2, 12), (5, 89)])
def test_images_without_room_for_the_rings_are_refused(octaves, smallest):
    model = network(octaves=octaves)
    assert model.accepted_sizes == f"{smallest} px or more"
    assert model(images(side=smallest)).view.isfinite().all()
    with pytest.raises(InputError, match=f"image size {smallest - 1}x{smallest - 1} px .* use {smallest} px or more"):
        model(images(side=smallest - 1))


def test_only_the_perceptron_is_trained():
    model = network(width=8, depth=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 937 * 8 + 2 * 9 * 8
    model(images()).view.square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
