"""The blur: its width, its flux, and its definition."""

import torch
import torchvision.transforms.functional as reference

from ssl_lens.views.blur import gaussian_blur


def test_blur_equals_torchvisions_image_by_image():
    images = torch.rand(4, 2, 32, 40, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.7, 1.1, 2.0])
    blurred = gaussian_blur(images, sigma, 2.0)
    for image, width, result in zip(images, sigma.tolist(), blurred, strict=True):
        assert torch.allclose(result, reference.gaussian_blur(image, 13, width), atol=1e-6)


def test_a_star_keeps_its_flux_and_gains_the_width():
    images = torch.zeros(3, 1, 41, 41)
    images[:, :, 20, 20] = 5.0
    sigma = torch.tensor([0.6, 0.8, 1.0])
    blurred = gaussian_blur(images, sigma, 1.0)
    assert torch.allclose(blurred.sum((1, 2, 3)), torch.tensor(5.0), rtol=1e-6)
    offset = torch.arange(41) - 20
    variance = (blurred.sum(2)[:, 0] * offset**2).sum(1) / 5.0
    assert torch.allclose(variance.sqrt(), sigma, rtol=0.02)  # cut at 3 sigma


def test_zero_width_is_the_identity():
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(gaussian_blur(images, torch.tensor([0.0, 0.0]), 1.0), images)
