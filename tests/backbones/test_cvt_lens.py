"""The CvT of the lens literature against vit-pytorch, and the parameter counts that the literature reports."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import formula_image, formula_weights

from ssl_lens.backbones.cvt_lens import ConvStage, CvTLens, CvTLensOptions, lens_head
from ssl_lens.errors import InputError

FIXTURE = Path(__file__).parent / "fixtures" / "cvt_lens.npz"  # made by vit-pytorch 1.26.11, the first two stages


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_cvt_small_lens_has_the_published_parameters():
    network = CvTLens(1)
    assert (count(network), count(network.head(2))) == (446_080, 17_026)
    assert count(network) + count(network.head(2)) == 463_106


def test_a_stage_of_it_has_the_parameters_of_the_equivariant_form():
    stage = ConvStage(10, 32, kernel_size=3, stride=2, num_heads=3, depth=2, mlp_ratio=2.0)
    convolution, norm, *blocks = map(count, stage)
    assert (convolution, norm, blocks) == (2_912, 64, [29_632, 29_632])
    assert count(lens_head(32, 64, 2)) == 2_370


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 26), (3, 5)])
@torch.no_grad()
def test_it_equals_vit_pytorch_at_any_size(height, width):
    network = CvTLens(1).double().eval()
    network.load_state_dict(formula_weights(network))
    expected = np.load(FIXTURE, allow_pickle=False)[f"last_{height}x{width}"]
    last = network.stages(formula_image(1, 1, height, width))[-1]
    np.testing.assert_allclose(last.numpy(), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 50), (64, 65)])
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_any_size_gives_the_map_it_announces(size, channels):
    network = CvTLens(channels, CvTLensOptions((8, 12), num_heads=(1, 2), depths=(1, 1), head_dim=4)).eval()
    view, regions, _ = network(torch.randn(2, channels, *size))
    height, width = network.map_size(*size)
    assert (height, width) == (-(-size[0] // 8), -(-size[1] // 8))
    assert view.shape == (2, 12)
    assert regions.shape == (2, height * width, 12)
    assert network.head(5)(view).shape == (2, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depths": (1,)}, r"depths=\[1\] of the CvT do not fit; give each one value per stage"),
        ({"dims": (), "depths": ()}, "give each one value per stage"),
        ({"kernel_sizes": (4, 2)}, r"kernel_sizes=\[4, 2\] .* use odd kernels no smaller than their stride"),
        ({"kernel_sizes": (3, 3)}, r"kernel_sizes=\[3, 3\] with strides=\[4, 2\] .* no smaller than their stride"),
    ],
)
def test_impossible_architectures_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        CvTLens(1, CvTLensOptions(**arguments))


def test_an_empty_image_is_refused():
    with pytest.raises(InputError, match=r"image size 64x0 px is empty; use 1 px or more"):
        CvTLens(1)(torch.zeros(1, 1, 64, 0))
