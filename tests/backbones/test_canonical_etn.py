"""The equivariant transformer network: its pose turns with the image, its features stay."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import formula_blobs, formula_image, formula_weights
from torch import Tensor, nn

from ssl_lens.backbones.canonical_etn import CanonicalETN, CanonicalETNOptions, PosePredictor, _sample, _unit
from ssl_lens.errors import InputError

# A transcription of EquivariantPosePredictor of stanford-futuredata/equivariant-transformers, with strides (2, 2).
FIXTURE = Path(__file__).parent / "fixtures" / "canonical_etn.npz"


def small(in_channels: int = 1) -> CanonicalETN:
    torch.manual_seed(0)
    return CanonicalETN(
        in_channels, CanonicalETNOptions(width=4, depths=(1, 1), stem_stride=1, pose_width=8, angles=32)
    )


def blobs(size: int, angle: float) -> Tensor:
    return formula_blobs(8, 3, size, angle)


@torch.no_grad()
def warmed_up(network: CanonicalETN) -> CanonicalETN:
    for turn in range(4):
        network.train()(blobs(32, turn))
    return network.eval()


def test_it_has_the_parameters_of_a_narrow_resnet_and_a_pose_predictor():
    network = CanonicalETN(1)
    assert [sum(p.numel() for p in m.parameters()) for m in (network, network.pose)] == [1_252_512, 26_688]


@torch.no_grad()
def test_the_pose_predictor_equals_the_authors_at_every_fourth_angle():
    predictor = PosePredictor(2, 6).double().eval()
    predictor.load_state_dict(formula_weights(predictor))
    heatmap = predictor(formula_image(2, 2, 32, 11))[:, ::4].softmax(dim=1)
    np.testing.assert_allclose(heatmap.numpy(), np.load(FIXTURE, allow_pickle=False)["heatmap"], atol=1e-9)


@torch.no_grad()
def test_every_cyclic_shift_of_the_log_polar_picture_shifts_the_logits():
    predictor = PosePredictor(2, 6).double().eval()
    picture = formula_image(2, 2, 32, 11)
    for shift in (1, 2, 13):
        shifted = predictor(picture.roll(shift, dims=2))
        torch.testing.assert_close(shifted, predictor(picture).roll(shift, dims=1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [64, 65])
@torch.no_grad()
def test_the_pose_turns_with_the_image_and_the_features_stay(size):
    network = warmed_up(small())
    images = blobs(size, 0.0)
    before = network(images).view
    quarter = network(images.rot90(1, (2, 3))).view
    assert ((quarter - before).norm(dim=1) / before.norm(dim=1)).max() <= 1e-4
    for degrees in (45, 90, 180):
        turned = blobs(size, math.radians(degrees))
        start, end = (torch.atan2(*network.direction(i).flip(1).unbind(1)) for i in (images, turned))
        error = torch.rad2deg(end - start) - degrees
        assert ((error + 180) % 360 - 180).abs().median() <= 2
        assert ((network(turned).view - before).norm(dim=1) / before.norm(dim=1)).median() <= 0.05


@torch.no_grad()
def test_sampling_equals_torchs_grid_sample():
    images, points = torch.randn(2, 3, 7, 10), torch.rand(2, 2, 50) * 14 - 7
    grid = (points / torch.tensor([4.5, 3.0])[:, None]).transpose(1, 2)[:, None]
    expected = F.grid_sample(images, grid, padding_mode="border", align_corners=True)[:, :, 0]
    torch.testing.assert_close(_sample(images, points), expected, atol=1e-5, rtol=0)


def test_the_direction_of_a_vector_has_a_finite_gradient_everywhere():
    vectors = torch.tensor([[0.0, 0.0], [1e-20, 0.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    unit = _unit(vectors)
    torch.testing.assert_close(unit[[0, 2]], torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(unit[:, 1].sum(), vectors)
    assert gradient.abs().max() <= 10
    torch.testing.assert_close(gradient[2], torch.tensor([-0.8, 0.6], dtype=torch.float64) * 0.6 / 5)


def test_a_blank_image_trains():
    network = small().train()
    network(torch.zeros(2, 1, 9, 9)).view.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_a_few_steps_tell_wide_blobs_from_narrow_ones():
    network = small()
    head = network.head(2)
    optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-2)
    images = torch.cat([blobs(24, 0.0), blobs(24, 0.0) ** 4])
    labels = torch.arange(2).repeat_interleave(8)
    losses = []
    for _ in range(12):
        losses.append(nn.functional.cross_entropy(head(network(images).view), labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_it_trains_in_double_precision_too():
    network = small().double().train()
    before = network.pose.bn1.running_mean.clone()
    network(blobs(16, 0.0).double()).view.square().sum().backward()
    assert network.pose.conv1.weight.grad.abs().max() > 0
    assert (network.pose.bn1.running_mean != before).any()


@pytest.mark.parametrize(("height", "width"), [(20, 33), (1, 1), (2, 5)])
@torch.no_grad()
def test_any_size_gives_the_map_of_its_inscribed_square(height, width):
    network = small().eval()
    rows, columns = network.map_size(height, width)
    assert rows == columns
    assert network(torch.randn(1, 1, height, width)).regions.shape == (1, rows * columns, 8)


@torch.no_grad()
def test_corners_have_no_influence():
    network = warmed_up(small())
    images = blobs(32, 0.0)
    other = images.clone()
    other[:, :, :3, :3] += 1
    torch.testing.assert_close(network(other).view, network(images).view, atol=0, rtol=0)


def test_angles_that_quarter_turns_do_not_shift_are_refused():
    with pytest.raises(InputError, match="angles=30 .* not a multiple of 4; use 64"):
        CanonicalETN(1, CanonicalETNOptions(angles=30))
