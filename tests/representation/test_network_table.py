"""The table of networks: what is measured is what the papers count and what the symmetries promise."""

from pathlib import Path

import pytest
import torch

from ssl_lens.backbones import catalog
from ssl_lens.errors import InputError
from ssl_lens.representation.network_table import HEADER, blobs, measure, option_lines, table


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


def test_the_document_is_what_the_catalogue_says():
    """Names, small networks' parameters and all options; the rest is measured, which takes minutes."""
    document = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    shown = document.split("<!-- ssl-lens models -->\n")[1].split("\n<!-- end -->")[0]
    rows, options = shown.split("\n\n", 1)
    assert "\n" + options == "\n".join(option_lines(catalog.names()))
    header, _, *rows = rows.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == list(HEADER)
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [name for name, *_ in cells] == list(catalog.names())
    for name, count, *_ in cells:
        parameters = int(count.replace(",", ""))
        if parameters < 2e6:
            backbone = catalog.build_backbone(name, {}, in_channels=1, image_size=64)
            modules = torch.nn.ModuleList([backbone, backbone.head(2)])
            assert sum(parameter.numel() for parameter in modules.parameters()) == parameters


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match="name='eqcvtt' is unknown; the nearest are eqcvt"):
        next(table(["swin_tiny", "eqcvtt"]))
