"""`ssl-lens simulate`: what it writes, and what it refuses."""

import csv
import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ssl_lens.cli import main as cli
from ssl_lens.cli.simulate import MODELS, REDRAWN
from ssl_lens.simulation import lens
from ssl_lens.simulation.parameters import Model

SMALL_LENSES = ["--count", "6", "--image-size", "32", "--pixel-scale-arcsec", "0.2", "--seed", "3"]


def test_the_models_to_choose_from_are_those_there_are() -> None:
    assert get_args(Model) == MODELS
    assert tuple(lens.REDRAWN) == get_args(lens.Redraw) == REDRAWN


def test_writes_three_classes(tmp_path: Path) -> None:
    ranges = ["--set", "shear=0,0.1", "source_colour_mag=0,0.5", "lens_colour_mag=0,1"]
    assert cli.main(["simulate", str(tmp_path / "lenses"), *SMALL_LENSES, "--workers", "1", *ranges]) == 0
    for name in ("no_sub", "cdm", "axion"):
        images = sorted((tmp_path / "lenses" / name).glob("*.npy"))
        assert [np.load(image).shape for image in images] == [(2, 32, 32)] * 2
    with (tmp_path / "lenses" / "parameters.csv").open(newline="") as file:
        shears = {(float(row["gamma1"]) ** 2 + float(row["gamma2"]) ** 2) ** 0.5 for row in csv.DictReader(file)}
    assert len(shears) == 6
    assert max(shears) < 0.1


def test_as_deeplense(tmp_path: Path) -> None:
    given = ["simulate", str(tmp_path / "lenses"), *SMALL_LENSES, "--as-deeplense", "--set", "orientation=physical"]
    assert cli.main(given) == 0
    settings = json.loads((tmp_path / "lenses" / "simulation.json").read_text())
    chosen = [settings[key] for key in ("noise", "orientation", "subhalo_scatter", "distances")]
    assert chosen == ["deeplense", "physical", "deeplense", "deeplense"]
    image = np.load(tmp_path / "lenses" / "cdm" / "cdm_000001.npy")
    assert (image == np.round(image)).all()  # whole counts


@pytest.mark.parametrize(
    ("options", "redrawn"),
    [
        ([], ["source", "exposure", "lens_light", "psf"]),
        (["--redraw", "lens_light", "source"], ["source", "lens_light"]),
        (["--redraw"], []),
    ],
)
def test_renderings(tmp_path: Path, options: list[str], redrawn: list[str]) -> None:
    given = ["simulate", str(tmp_path / "lenses"), *SMALL_LENSES, "--workers", "1", "--renderings", "2", *options]
    assert cli.main(given) == 0
    names = sorted(path.name for path in (tmp_path / "lenses" / "cdm").iterdir())
    assert names == [f"cdm_00000{i}_{rendering}.npy" for i in range(2) for rendering in range(2)]
    assert json.loads((tmp_path / "lenses" / "simulation.json").read_text())["redraw"] == redrawn
    with (tmp_path / "lenses" / "parameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    moved = [
        one["source_x_arcsec"] != other["source_x_arcsec"] for one, other in zip(rows[::2], rows[1::2], strict=True)
    ]
    assert moved == [bool(redrawn)] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--renderings", "0"], "error: --renderings=0 is too small; set it to 1 or more"),
        (
            ["--redraw", "source", "exposure"],
            "error: --redraw=source,exposure has no effect with --renderings=1; set --renderings=2 or more",
        ),
        (["--count", "7"], "--count 7 is not a multiple of the 3 classes; set it to 9"),
        (["--count", "0"], "--count 0 is not a multiple of the 3 classes; set it to 3"),
        (["--workers", "0"], "error: --workers=0 is too small; set it to 1 or more"),
        (["--set", "sheer=0.1"], "unknown key sheer=0.1; the nearest are shear"),
    ],
)
def test_says_what_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert cli.main(["simulate", str(tmp_path / "lenses"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lenses").exists()


def test_a_flag_that_is_given_twice_adds_to_the_first(tmp_path: Path) -> None:
    """The second took the place of the first, in silence."""
    ranges = ["--set", "shear=0,0.1", "brightness=2", "--set", "lens_light=0.5"]
    size = ["--count", "3", "--image-size", "32", "--pixel-scale-arcsec", "0.25"]
    assert cli.main(["simulate", str(tmp_path / "set"), *size, *ranges]) == 0
    record = json.loads((tmp_path / "set" / "simulation.json").read_text())
    assert (record["shear"], record["brightness"], record["lens_light"]) == ([0, 0.1], [2, 2], [0.5, 0.5])
