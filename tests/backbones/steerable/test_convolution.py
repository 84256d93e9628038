"""Steerable convolutions: exact under their group, never stale, equal to e2cnn's."""

import subprocess
import sys

import pytest
import torch
from e2cnn import gspaces
from e2cnn import nn as e2nn
from e2cnn.kernels.irreps_basis import R2FlipsContinuousRotationsSolution
from e2cnn.nn import init
from scipy import sparse

from ssl_lens.backbones.steerable.convolution import SteerableConv2d, SteerableLayer
from ssl_lens.backbones.steerable.groups import ORDERS
from ssl_lens.errors import InputError

SPACES = {
    "C4": gspaces.Rot2dOnR2(4),
    "C8": gspaces.Rot2dOnR2(8),
    "D4": gspaces.FlipRot2dOnR2(4),
    "D8": gspaces.FlipRot2dOnR2(8),
}


def turned(group: str, x: torch.Tensor, fields: int, *, flip: bool = False) -> torch.Tensor:
    """A map of regular fields of an image turned by 90°, or flipped, as e2cnn says it must be."""
    field_type = e2nn.FieldType(SPACES[group], [SPACES[group].regular_repr] * fields)
    quarter = int(group[1:]) // 4
    element = (1, 0) if flip else quarter if group[0] == "C" else (0, quarter)
    return e2nn.GeometricTensor(x, field_type).transform(element).tensor


@pytest.mark.parametrize(("kernel_size", "groups"), [(1, 1), (3, 1), (5, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_fields_turn_with_the_image(group, kernel_size, groups):
    torch.manual_seed(0)
    conv = SteerableConv2d(group, 2, 4, kernel_size, groups=groups, bias=True)
    conv.bias.normal_()
    x = torch.randn(1, 2 * ORDERS[group], 9, 9)
    y = conv(x)
    for flip in (False, True) if group[0] == "D" else (False,):
        torch.testing.assert_close(
            conv(turned(group, x, 2, flip=flip)), turned(group, y, 4, flip=flip), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@torch.no_grad()
def test_an_untrained_convolution_behind_a_relu_keeps_the_size_of_numbers(kernel_size):
    torch.manual_seed(0)
    x = torch.randn(4, 16 * 8, 16, 16)
    y = SteerableConv2d("C8", 16, 16, kernel_size)(x.relu() if kernel_size > 1 else x)[..., 3:-3, 3:-3]
    assert 0.5 < y.std() < 2


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_filter_is_e2cnns_for_the_same_weights(group):
    space = SPACES[group]
    ours = SteerableConv2d(group, 2, 3, 3)
    given, made = (e2nn.FieldType(space, [space.regular_repr] * fields) for fields in (2, 3))
    theirs = e2nn.R2Conv(given, made, 3, bias=False)
    theirs.weights.copy_(ours.weights)
    torch.testing.assert_close(ours.filter(), theirs.expand_parameters()[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("group", ORDERS)
@torch.no_grad()
def test_initial_weights_have_e2cnns_variances(group):
    torch.manual_seed(0)
    space = SPACES[group]
    given, made = (e2nn.FieldType(space, [space.regular_repr] * fields) for fields in (3, 2))
    expected = init._generalized_he_init_variances(e2nn.R2Conv(given, made, 3, initialize=False).basisexpansion)
    draws = torch.stack([SteerableConv2d(group, 3, 2, 3).weights for _ in range(100)])
    assert len(draws[0]) == len(expected)
    assert (draws.std(dim=0) / expected - 1).abs().max() < 0.4
    assert abs((draws / expected).std().item() - 1) < 0.03


@torch.no_grad()
def test_parts_of_the_fields_are_kept_apart():
    torch.manual_seed(0)
    conv = SteerableConv2d("C4", 2, 4, 3, groups=2)
    x = torch.randn(1, 8, 5, 5)
    y = conv(x)
    x[:, 4:] += 1
    changed = (conv(x) - y).abs().amax(dim=(0, 2, 3)) > 1e-6
    assert changed.tolist() == [False] * 8 + [True] * 8


@torch.no_grad()
def test_changed_weights_are_seen_at_once_in_evaluation_mode():
    layer = SteerableLayer(SteerableConv2d("C4", 1, 2, 3, scalar_input=True)).eval()
    images = torch.randn(1, 1, 9, 9)
    before = layer(images)
    layer.conv.weights.mul_(2)
    torch.testing.assert_close(layer(images), 2 * before)


def test_batch_norm_is_shared_by_the_elements_of_a_field():
    torch.manual_seed(0)
    layer = SteerableLayer(SteerableConv2d("D8", 1, 2, 3, scalar_input=True))
    assert tuple(layer.norm.weight.shape) == (2,)
    y = layer(torch.randn(2, 1, 9, 9)).unflatten(1, (2, 16))
    torch.testing.assert_close(y.mean(dim=(0, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    assert y.mean(dim=(0, 3, 4)).abs().max() > 1e-3


def test_bfloat16_autocast_expands_the_filter_in_float32():
    conv = SteerableConv2d("C8", 2, 2, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv.filter().dtype == torch.float32
        assert conv(torch.randn(1, 16, 16, 16)).isfinite().all()


def test_e2cnn_is_patched_for_numpy_2():
    """Dihedral bases hash and evaluate; unpatched, e2cnn 0.2.3 calls tostring and array(copy=False)."""
    for group in ("D4", "D8"):
        assert SteerableConv2d(group, 1, 1, 5).basis.isfinite().all()
    space = gspaces.FlipRot2dOnR2(-1, maximum_frequency=2)
    basis = R2FlipsContinuousRotationsSolution(space.fibergroup, "irrep_1,1", "irrep_1,1")
    again = R2FlipsContinuousRotationsSolution(space.fibergroup, "irrep_1,1", "irrep_1,1")
    assert hash(basis) == hash(again)


def test_e2cnn_is_patched_for_scipy_1_18(monkeypatch):
    """`block_diag` of arrays alone is deprecated there, since it will give an array that is not a matrix."""
    block_diag, given = sparse.block_diag, []

    def recorded(blocks, format):
        given.append(all(isinstance(block, sparse.spmatrix) for block in blocks))
        return block_diag(blocks, format=format)

    monkeypatch.setattr(sparse, "block_diag", recorded)
    space = gspaces.FlipRot2dOnR2(5)  # of no other test: e2cnn keeps what it has worked out
    turn = space.regular_repr(space.fibergroup.elements[1])
    assert turn.round(6).sum() == len(space.fibergroup.elements)  # a permutation
    assert e2nn.FieldType(space, [space.regular_repr]).change_of_basis.shape == turn.shape
    assert given
    assert all(given)


@pytest.mark.parametrize(
    ("arguments", "message"), [(("C6", 1, 1, 3), "group='C6' is not known"), (("C4", 1, 1, 4), "kernel_size=4")]
)
def test_impossible_convolutions_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        SteerableConv2d(*arguments)


def test_a_first_import_reports_nothing(tmp_path):
    """e2cnn's sources hold invalid escape sequences, which Python reports whenever it compiles them."""
    command = (
        "import sys, numpy, scipy.linalg, sympy, torch; sys.dont_write_bytecode = True; "
        f"sys.pycache_prefix = {str(tmp_path)!r}; import ssl_lens.backbones.steerable.convolution"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
