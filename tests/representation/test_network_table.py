"""The table of networks: what is measured is what the papers count and what the symmetries promise."""

import pytest
import torch

from ssl_lens.errors import InputError
from ssl_lens.representation.network_table import blobs, measure, table


@pytest.fixture(scope="module")
def steerable():
    return measure("steerable_cnn_c4")


def test_a_steerable_network_sees_no_quarter_turn_and_exports(steerable):
    assert steerable.parameters == 85_250
    assert steerable.turned_90 < 1e-5
    assert 0.02 < steerable.turned_45 < 0.5
    assert steerable.exported
    assert steerable.difference < 1e-5


def test_an_ordinary_network_takes_a_turned_lens_for_another_and_counts_as_the_papers_do():
    row = measure("resnet18")
    assert 0.5 < row.turned_90 < 1.5
    at_224 = 1.814 - 2 / 3 * 0.118  # billion; published for 3 channels, of which the first convolution has one here
    assert row.gflops == pytest.approx([at_224 * (size / 224) ** 2 for size in (64, 128)], rel=0.02)


def test_blobs_turn_exactly():
    assert torch.allclose(blobs(64, 90.0), blobs(64, 0.0).rot90(1, (2, 3)), atol=1e-6)
    assert not torch.allclose(blobs(64, 45.0), blobs(64, 0.0), atol=0.1)


def test_a_row_is_a_line_of_a_markdown_table(steerable, monkeypatch):
    monkeypatch.setattr(
        "ssl_lens.representation.network_table.measure", lambda name: steerable._replace(difference=None)
    )
    header, rule, row, *options = table(["steerable_cnn_c4"])
    assert header.count("|") == rule.count("|") == row.count("|")
    assert [cell.strip() for cell in row.split("|")][1:3] == ["steerable_cnn_c4", "85,250"]
    assert row.split("|")[-2].strip() == "yes"


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="name='eqcvtt' is unknown; the nearest are eqcvt"):
        next(table(["swin_tiny", "eqcvtt"]))
