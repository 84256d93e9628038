import math

import numpy as np
import pytest
import torch

from ssl_lens.evaluation.turns import quarter_turns, spread, turned


def _images(height: int, width: int) -> torch.Tensor:
    return torch.randn(3, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _outputs(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Of a linear model, weights [K, C, H, W], at all eighths of a turn: [8, N, K]."""
    return torch.stack([torch.einsum("nchw,kchw->nk", turned(images, k), weights) for k in range(8)])


@pytest.mark.parametrize("eighths", [0, 2, 4, 6])
def test_quarter_turns_move_pixels_and_change_none(eighths):
    images = _images(7, 7)
    assert torch.equal(turned(images, eighths), images.rot90(eighths // 2, (-2, -1)))


@pytest.mark.parametrize("eighths", [1, 3, 5, 7])
def test_eighths_turn_a_dipole_by_their_angle(eighths):
    """The first moments of a smooth off-centre blob turn counter-clockwise, rows counting downwards."""
    y, x = torch.meshgrid(torch.arange(41) - 20.0, torch.arange(41) - 20.0, indexing="ij")
    blob = torch.exp(-((x - 6) ** 2 + y**2) / 18)[None, None]
    image = turned(blob, eighths)[0, 0]
    angle = math.atan2(-float((y * image).sum()), float((x * image).sum()))
    assert angle % (2 * math.pi) == pytest.approx(eighths * math.pi / 4, abs=1e-3)


def test_what_lies_outside_is_mirrored_so_that_a_constant_stays_constant():
    constant = torch.full((1, 1, 9, 9), 3.0)
    assert all(torch.allclose(turned(constant, k), constant) for k in range(8))


def test_oblong_images_keep_their_shape_and_half_turns_are_exact():
    images = _images(6, 9)
    assert all(turned(images, k).shape == images.shape for k in range(8))
    assert torch.equal(turned(images, 4), images.flip(-2, -1))
    torch.testing.assert_close(turned(images, 6), turned(images, 2).flip(-2, -1))


def test_spread_of_a_linear_model_by_hand():
    """One bright corner pixel of value v and a weight w there: a quarter turn takes it away, three of four give 0.

    Outputs v w, 0, 0, 0 have the standard deviation v w sqrt(3) / 4. A second output that weighs all four corners
    alike never changes.
    """
    images = torch.zeros(2, 1, 4, 4)
    images[:, 0, 0, 0] = torch.tensor([1.0, 3.0])
    weights = torch.zeros(2, 1, 4, 4)
    weights[0, 0, 0, 0] = 2.0
    weights[1, 0, ::3, ::3] = 1.0
    outputs = quarter_turns(_outputs(images, weights).numpy())
    assert spread(outputs).tolist() == pytest.approx([2 * 2.0 * math.sqrt(3) / 4, 0.0], abs=1e-12)


def test_spread_over_all_eighths_is_the_mean_over_images_of_the_population_deviation():
    outputs = np.zeros((8, 2, 1))
    outputs[:4, 0], outputs[0, 1] = 1.0, 8.0  # deviations 1/2 and sqrt(8 - 1)
    assert spread(outputs).tolist() == pytest.approx([(0.5 + math.sqrt(7)) / 2])


def test_an_invariant_model_has_none():
    """Weights that depend on the radius alone see no quarter turn."""
    y, x = torch.meshgrid(torch.arange(8) - 3.5, torch.arange(8) - 3.5, indexing="ij")
    weights = torch.exp(-(x**2 + y**2) / 8).double().expand(1, 2, 8, 8)
    outputs = _outputs(_images(8, 8), weights).numpy()
    assert spread(quarter_turns(outputs)).max() < 1e-14
    assert spread(outputs).min() > 1e-3  # at 45 degrees the pixels are others
