"""The verbs in Python: found, lazy, and they do what the commands do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from tiny_run import RECIPE, write_labelled_images

import ssl_lens
from ssl_lens.errors import InputError

VERBS = [name for name in ssl_lens.__all__ if name.islower() and not name.startswith("_")]


def test_all_are_in_dir_and_exist() -> None:
    assert {"pretrain", "evaluate", "finetune", "embed", "predict", "load_backbone", "read_images"} <= set(
        dir(ssl_lens)
    )
    for name in dir(ssl_lens):
        assert getattr(ssl_lens, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'pretrian'"):
        ssl_lens.pretrian  # noqa: B018


def test_all_are_explained() -> None:
    for name in VERBS:
        assert len(getattr(ssl_lens, name).__doc__) > 100


def test_import_alone_is_quick() -> None:
    code = "import sys, ssl_lens; dir(ssl_lens); sys.exit(str({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_pretrain_returns_a_run_whose_backbone_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    write_labelled_images(tmp_path / "data", per_class=4)
    given = ("data.path=data", "optim.epochs=2", "optim.warmup_epochs=0", "run.device=cpu", "run.cpu_threads=1")
    try:
        run = ssl_lens.pretrain("tiny.yaml", given)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert run.folder == Path("runs/tiny")
    assert run.metrics[-1]["epoch"] == 2
    assert {"step", "loss"} <= set(run.metrics[0])
    images = ssl_lens.read_images("data")
    assert images.classes == ("arc", "ring")
    assert run.load_backbone() is not None


def test_errors_are_the_commands(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key optim.epoch=3; the nearest valid key is optim.epochs"):
        ssl_lens.pretrain("esvit_micro", ["optim.epoch=3"])
    with pytest.raises(InputError, match="does not exist"):
        ssl_lens.read_images(tmp_path / "none")


def test_simulate_writes_a_set_that_reads_back(tmp_path: Path) -> None:
    folder = ssl_lens.simulate(
        tmp_path / "lenses", ["shear=0,0.1"], count_per_class=1, image_size=32, pixel_scale_arcsec=0.2, seed=3
    )
    images = ssl_lens.read_images(folder)
    assert images.classes == ("axion", "cdm", "no_sub")
    assert np.asarray(images.images[:]).shape == (3, 1, 32, 32)


def test_simulate_renders_a_lens_several_times(tmp_path: Path) -> None:
    folder = ssl_lens.simulate(
        tmp_path / "lenses",
        count_per_class=1,
        image_size=32,
        pixel_scale_arcsec=0.2,
        renderings=2,
        redraw=["exposure"],
    )
    targets = ssl_lens.read_images(folder).targets
    assert targets["lens_number"].tolist() == [0, 0, 1, 1, 2, 2]
    for name, renderings_are_equal in (("source_x_arcsec", True), ("exposure_s", False), ("gamma1", True)):
        first, second = targets[name].reshape(3, 2).T
        assert ((first == second) == renderings_are_equal).all()
