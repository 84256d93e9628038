"""Widths, heads and drop rates of stages."""

import pytest
import torch

from ssl_lens.backbones.layers.stages import check_heads, doubling_dims, drop_rates
from ssl_lens.errors import InputError


def test_widths_double_from_stage_to_stage():
    assert doubling_dims(6, depths=(1, 4, 1), num_heads=(3, 4, 8)) == [6, 12, 24]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_drop_rates_rise_linearly_over_all_blocks(device):
    with torch.device(device):
        assert drop_rates(0.5, (1, 0, 2, 3)) == [[0.0], [], pytest.approx([0.1, 0.2]), pytest.approx([0.3, 0.4, 0.5])]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"depths=\[\], num_heads=\[\] do not fit"):
        doubling_dims(8, (), ())
    with pytest.raises(InputError, match=r"stage dims=\[8, 12\] are not multiples of num_heads=\[2, 5\]"):
        check_heads((8, 12), (2, 5))
