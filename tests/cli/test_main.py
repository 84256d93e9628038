import csv
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import RECIPE, write_labelled_images

from ssl_lens.cli import main as cli
from ssl_lens.cli.console import show_progress
from ssl_lens.representation.export import ExportCheck

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("onnx", "line"), [(2e-7, "ONNX: features differ from the run's by 2.0e-07"), (None, "ONNX: written, not checked")]
)
def test_export_prints_the_differences(monkeypatch, capsys, onnx, line):
    """The export itself is tested in test_export.py."""
    given = []

    def export(run: Path, out: Path, *, image_size: int | None, pooling: str | None) -> ExportCheck:
        given.extend([run, out, image_size])
        return ExportCheck(weights=3e-7, onnx=onnx)

    monkeypatch.setattr("ssl_lens.representation.export.export", export)
    assert cli.main(["export", "run", "out", "--image-size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "out: features differ from the run's by 3.0e-07 (at most 1e-05)"
    assert lines[1].startswith(line)
    assert given == [Path("run"), Path("out"), 64]


def test_views_draws_a_picture(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    data = write_labelled_images(tmp_path / "data", per_class=4)
    picture = tmp_path / "new" / "views.png"
    assert cli.main(["views", str(recipe), f"data.path={data}", "--out", str(picture)]) == 0
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


SMALL_LENSES = ["--count", "6", "--image-size", "32", "--pixel-scale-arcsec", "0.2", "--seed", "3"]


def test_simulate_writes_three_classes(tmp_path):
    options = [
        *SMALL_LENSES,
        "--workers",
        "1",
        "--set",
        "shear=0,0.1",
        "source_colour_mag=0,0.5",
        "lens_colour_mag=0,1",
    ]
    assert cli.main(["simulate", str(tmp_path / "lenses"), *options]) == 0
    for name in ("no_sub", "cdm", "axion"):
        images = sorted((tmp_path / "lenses" / name).glob("*.npy"))
        assert [np.load(image).shape for image in images] == [(2, 32, 32)] * 2
    with (tmp_path / "lenses" / "parameters.csv").open(newline="") as file:
        shears = {(float(row["gamma1"]) ** 2 + float(row["gamma2"]) ** 2) ** 0.5 for row in csv.DictReader(file)}
    assert len(shears) == 6
    assert max(shears) < 0.1


def test_simulate_as_deeplense(tmp_path):
    given = ["simulate", str(tmp_path / "lenses"), *SMALL_LENSES, "--as-deeplense", "--set", "orientation=physical"]
    assert cli.main(given) == 0
    settings = json.loads((tmp_path / "lenses" / "simulation.json").read_text())
    chosen = [settings[key] for key in ("noise", "orientation", "subhalo_scatter", "distances")]
    assert chosen == ["deeplense", "physical", "deeplense", "deeplense"]
    image = np.load(tmp_path / "lenses" / "cdm" / "cdm_000001.npy")
    assert (image == np.round(image)).all()  # whole counts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--count", "7"], "--count 7 is no multiple of the 3 classes; set it to 9"),
        (["--count", "0"], "--count 0 is no multiple of the 3 classes; set it to 3"),
        (["--workers", "0"], "workers=0 is too small; set it to 1 or more"),
        (["--set", "sheer=0.1"], "unknown key sheer=0.1; the nearest are shear"),
    ],
)
def test_simulate_says_what_cannot_be(tmp_path, capsys, options, message):
    assert cli.main(["simulate", str(tmp_path / "lenses"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lenses").exists()


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert cli.main(["views", str(tmp_path / "none.yaml"), "--out", "x.png"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_a_missing_subcommand_is_a_usage_error():
    with pytest.raises(SystemExit, match="2"):
        cli.main([])


def test_a_script_runs_its_command_and_passes_the_status_on(tmp_path):
    """One process for all of eval/: the three scripts differ in a name."""
    process = subprocess.run(
        [sys.executable, REPOSITORY / "eval" / "knn.py", tmp_path, "--data", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert "neither a run" in process.stderr
    for script in ("linear_probe", "finetune"):
        text = (REPOSITORY / "eval" / f"{script}.py").read_text()
        assert f"sys.exit({script}())" in text


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path):
    for i in range(200):
        (tmp_path / f"class_{i:03d}").mkdir()
        np.save(tmp_path / f"class_{i:03d}" / "x.npy", np.random.default_rng(i).normal(size=(8, 8)))
    command = [
        sys.executable,
        "-u",
        "-m",
        "ssl_lens.cli.main",
        "data",
        "check",
        tmp_path,
        "--out",
        tmp_path.parent / "out",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141


def test_only_our_own_progress_is_shown(caplog):
    """Other packages log at level INFO too, ONNX's optimiser by the hundred."""
    show_progress()
    logging.getLogger("onnx_ir").info("Replaced initializer")
    logging.getLogger("ssl_lens.data").info("packing")
    logging.getLogger("onnx_ir").warning("broken")
    assert [record.message for record in caplog.records] == ["packing", "broken"]
