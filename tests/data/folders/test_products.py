"""What this package makes below a folder of images is not taken for images; by the names that it really writes."""

import logging
from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_labelled_images, write_run

from ssl_lens.data.check.check import check_images
from ssl_lens.data.check.report import write_check
from ssl_lens.data.folders.discovery import find_images
from ssl_lens.data.folders.products import kind_of_product
from ssl_lens.data.images import load_images, pack_images
from ssl_lens.data.pixels.policy import PixelPolicy
from ssl_lens.evaluation.table import RESULTS, SETTINGS
from ssl_lens.representation.frozen import CONFIG, WEIGHTS

PLAIN = {"policy": PixelPolicy(), "layout": "auto", "table": None}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))


def names(folder: Path) -> list[str]:
    return [source.name for source in find_images(folder, PixelPolicy(), "auto", None).sources]


def test_products_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_labelled_images(tmp_path / "data", per_class=5)
    before = names(data)
    runs = data / "arc" / "runs"
    runs.mkdir()
    run = write_run(runs / "one")
    (run / "plots").mkdir()
    np.save(run / "plots" / "views.npy", np.zeros((20, 20)))  # as a picture would be
    assert names(data) == before
    for folder, files in ((data / "backbone", (CONFIG, WEIGHTS)), (data / "measured", (RESULTS, SETTINGS))):
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        np.save(folder / "0.npy", np.zeros((20, 20)))
    pack_images(data / "ring", data / "pack", **PLAIN)
    write_check(check_images(data, **PLAIN), data / "checks" / "data")
    (data / "out.npy.parts").mkdir()
    np.save(data / "out.npy.parts" / "0.npy", np.zeros((20, 20)))
    made = {"backbone": "export", "pack": "pack", "checks/data": "report", "measured": "report", "arc/runs/one": "run"}
    assert {name: kind_of_product(data / name) for name in made} == made
    assert [kind_of_product(data / name) for name in ("arc", "arc/runs", "checks")] == [None] * 3
    with caplog.at_level(logging.INFO):
        assert names(data) == before
    assert f"{data}: 6 folders are not images and left out, such as {data}/arc/runs/one (a run)" in caplog.messages
    assert load_images(data).classes == ("arc", "ring")
    assert len(load_images(data / "pack")) == 5  # given by itself it is what it is


@pytest.mark.parametrize(
    "files", [["recipe.yaml"], ["config.json"], ["manifest.json"], ["results.csv"], ["check.json"]]
)
def test_a_file_of_such_a_name_alone_makes_none(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "a").mkdir()
    for name in files:
        (tmp_path / "a" / name).touch()
    np.save(tmp_path / "a" / "0.npy", np.zeros((20, 20)))
    assert names(tmp_path) == ["a/0.npy"]
