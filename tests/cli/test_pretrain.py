"""Bad input to `ssl-lens pretrain`: one line on stderr, exit status 2, before the first step."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from ssl_lens.cli import main as cli

RECIPE = """
data: {{path: {images}}}
views: {{global_size: 16, local_sizes: [8], local_counts: [1]}}
model: {{name: swin_micro, patch_size: 2, stages: 2, window_size: 4}}
method: {{out_dim: 16, head_hidden_dim: 8}}
optim: {{epochs: 1, batch_size: 8, warmup_epochs: 0}}
run: {{folder: {run}, device: cpu}}
"""


def save(folder: Path, count: int, shape: tuple[int, ...] = (20, 20)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        np.save(folder / f"{i:03d}.npy", rng.normal(size=shape))
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return save(tmp_path / "images", 16)


@pytest.fixture
def main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`main(images, *overrides)`: exit status and the last line on stderr of the command."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))

    def call(images: Path, *overrides: str) -> tuple[int, str]:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(RECIPE.format(images=images, run=tmp_path / "run"), encoding="utf-8")
        try:
            status = cli.main(["pretrain", str(recipe), *overrides])
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
        lines = capsys.readouterr().err.splitlines()
        return status, lines[-1] if lines else ""

    return call


def refused(result: tuple[int, str], *words: str) -> None:
    status, line = result
    assert status == 2
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def test_a_missing_folder(main: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    refused(main(tmp_path / "none"), f"{tmp_path / 'none'} does not exist", "data.path")


def test_an_empty_folder(main: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(main(tmp_path / "empty"), "data.path=", "holds no images", ".npy")


def test_a_file_in_place_of_a_folder(main: Callable[..., tuple[int, str]], images: Path) -> None:
    refused(main(images / "000.npy"), "is a file")


def test_text_files_among_the_images_are_ignored(main: Callable[..., tuple[int, str]], images: Path) -> None:
    (images / "notes.txt").write_text("seeing was poor")
    assert main(images)[0] == 0


@pytest.mark.parametrize("kind", ["truncated", "nan", "zero"])
def test_unusable_images_are_refused_above_one_percent(
    main: Callable[..., tuple[int, str]], images: Path, tmp_path: Path, kind: str
) -> None:
    pixels = np.random.default_rng(0).normal(size=(20, 20))
    match kind:
        case "truncated":
            Image.fromarray((pixels * 20 + 128).clip(0, 255).astype(np.uint8)).save(images / "bad.jpg")
            content = (images / "bad.jpg").read_bytes()
            (images / "bad.jpg").write_bytes(content[: len(content) // 2])
        case "nan":
            np.save(images / "bad.npy", np.where(pixels > 1, np.nan, pixels))  # a sixth; a tenth would be filled
        case "zero":
            np.save(images / "bad.npy", np.zeros((20, 20)))
    refused(main(images), "1 of 17 images", "at most 1%")
    assert "bad" in (tmp_path / "run" / "quarantine.tsv").read_text()
    next(images.glob("bad.*")).unlink()
    assert main(images)[0] == 0  # repaired: the quarantine file alone does not make it an existing run


def test_mixed_shapes(main: Callable[..., tuple[int, str]], images: Path) -> None:
    np.save(images / "wide.npy", np.random.default_rng(0).normal(size=(20, 24)))
    refused(main(images), "20", "24", "wide.npy")


def test_a_wrong_number_of_channels(main: Callable[..., tuple[int, str]], images: Path) -> None:
    refused(main(images, "data.in_channels=3"), "needed are 3")


def test_a_batch_larger_than_the_set(
    main: Callable[..., tuple[int, str]], images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch shrinks, saying so; a set that cannot fill one part of a batch is refused."""
    status, _ = main(images, "optim.batch_size=32")
    assert status == 0
    assert "optim.batch_size: 32 -> 16, as there are only 16 images" in caplog.text
    refused(
        main(images, "optim.batch_size=32", "optim.accumulate=32", "run.resume=auto"), "16 images are fewer than the 32"
    )


def test_an_image_smaller_than_a_region(main: Callable[..., tuple[int, str]], images: Path) -> None:
    """A crop becomes as large as the images; a map of one region is then too small for a region loss."""
    refused(main(images, "views.global_size=24", "model.patch_size=10"), "views.global_size=20 leaves a 1x1 last map")


def test_an_unknown_key(main: Callable[..., tuple[int, str]], images: Path) -> None:
    refused(main(images, "optim.epoch=3"), "unknown key optim.epoch=3", "optim.epochs")


def test_an_existing_run(main: Callable[..., tuple[int, str]], images: Path, tmp_path: Path) -> None:
    save(tmp_path / "run", 1)
    refused(main(images), "exists already", "run.resume=auto")


def test_the_checkpoint_of_another_network(main: Callable[..., tuple[int, str]], images: Path, tmp_path: Path) -> None:
    assert main(images)[0] == 0
    (tmp_path / "run" / "recipe.yaml").unlink()
    refused(main(images, "run.resume=auto", "method.head_hidden_dim=9"), "another network", "of another shape")


def test_a_missing_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain", "none.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: recipe none.yaml does not exist; give a YAML file or a shipped recipe, one of ")
    assert error.count("\n") == 1


def test_from_the_shell(tmp_path: Path) -> None:
    """The launcher as a process: its status, and no traceback."""
    done = subprocess.run(
        [
            sys.executable,
            "pretrain.py",
            "recipes/esvit_micro.yaml",
            f"data.path={tmp_path / 'none'}",
            f"run.folder={tmp_path / 'run'}",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: data.path=")
    assert "Traceback" not in done.stderr


def test_a_network_without_weights(main: Callable[..., tuple[int, str]], images: Path) -> None:
    refused(
        main(images, "model={name: lens_wavelets}"),
        "model.name=lens_wavelets has no weights to train",
        "ssl-lens fit lens_wavelets OUT",
    )
