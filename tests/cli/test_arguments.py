"""What a command says is wrong, it calls by the key or the flag that the user wrote."""

from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_labelled_images, write_run

from ssl_lens.cli.arguments import READING_KEYS, flags
from ssl_lens.cli.main import main
from ssl_lens.recipe.recipe import VALID_KEYS


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, labelled images, images of two shapes and an empty folder."""
    root = tmp_path_factory.mktemp("places")
    write_run(root / "run")
    write_labelled_images(root / "data", per_class=6)
    (root / "empty").mkdir()
    (root / "mixed").mkdir()
    for side in (30, 40):
        np.save(root / "mixed" / f"{side}.npy", np.random.default_rng(0).random((side, side)))
    return root


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("pretrain esvit_micro data.path=empty", "data.path={}/empty holds no images (0 other files)"),
        ("pretrain esvit_micro data.path=mixed", "give images of one shape, or set data.sizes=crop or data.sizes=pad"),
        ("pretrain esvit_micro data.path=data run.folder=run", "run.folder=run exists already; set run.resume=auto"),
        ("pretrain vit.yaml data.path=data", "is not a multiple of model.patch_size=16; use 32x32 px or another"),
        (
            "views esvit_micro data.path=data --rgb 0 1 0",
            "--rgb=0 1 0 names a channel that the images do not have; give",
        ),
        ("evaluate run --data none", "--data=none does not exist"),
        ("evaluate run --data data --labels-per-class 90", "--labels-per-class=90 is not possible: class arc has"),
        ("evaluate run --data data --anomaly comet", "--anomaly=comet is not one of several classes"),
        ("evaluate run --data data --pooling max", "--pooling='max' is unknown"),
        ("evaluate run --data data --tasks regression", "regression needs --target-column, the numbers"),
        ("evaluate run --data data --probes knn --save kept", "--save=kept: none of the probes can be saved"),
        ("evaluate run --data data --layout gri --table x.csv", "x.csv cannot be read"),
        (
            "finetune resnet_micro model.stages=1 --data data --lr 1e30 --epochs 2 --seeds 1 --out out",
            "lower --lr=1e+30",
        ),
        ("finetune resnet_micro data.center_crop=60 --data data", "data.center_crop=60 exceeds the images of 40x40 px"),
        ("embed run empty out.parquet", "DIR=empty holds no images"),
        ("embed run data out.parquet --which view --pooling rings", "--pooling='rings' makes features, not the view"),
        ("embed run mixed out.parquet", "or set data.sizes=crop or data.sizes=pad"),
        ("predict run data scores.csv", "run holds a backbone without a head; give one that fine-tuning or an evaluat"),
        ("predict run data scores.csv", "by --save=FOLDER"),
        ("export run out --pooling rings --image-size 3", "3x3"),
        ("data check none", "DIR=none does not exist"),
        ("data check mixed --sizes crop --size 0", "--size=0x0 with --sizes='crop'"),
        ("data pack mixed out --max-masked 2", "--max-masked=2.0 is not a fraction"),
        ("simulate out --count 3 --image-size 0", "--image-size=0 is too small; set it to 1 or more"),
    ],
)
def test_errors_name_keys_and_flags(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, message: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for place in places.iterdir():
        (tmp_path / place.name).symlink_to(place)
    (tmp_path / "vit.yaml").write_text("model: {name: vit_small}\nviews: {global_size: 40, local_sizes: [32]}\n")
    assert main(command.split()) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message.format(tmp_path) in error


def test_the_keys_of_reading_are_keys() -> None:
    assert set(READING_KEYS.values()) <= set(VALID_KEYS)
    assert flags("labels_per_class", "k") == {"labels_per_class": "--labels-per-class", "k": "--k"}


@pytest.mark.parametrize(
    ("command", "planes", "noise"),
    [
        ("data check", "(default: those known to be flux)", "(default: none)"),
        (
            "evaluate",
            "(default: those of the run; none: those known to be flux)",
            "(default: that of the run; none: none)",
        ),
    ],
)
def test_help_says_what_is_read_unless_asked(
    capsys: pytest.CaptureFixture[str], command: str, planes: str, noise: str
) -> None:
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert planes in words
    assert noise in words
