"""The backbone that comes with the package, by its name, in every place that takes a run or an export."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ssl_lens
from ssl_lens.cli import main as cli
from ssl_lens.errors import InputError
from ssl_lens.recipe.recipe import load_recipe
from ssl_lens.representation.frozen import load_backbone, untrained_backbone
from ssl_lens.representation.shipped import FOLDER, folder_of, is_shipped, shipped_names

SHA256 = "dd776f647144b1e3be1900b487c2b13389d08a233fad67b2fd67887b8c8cda5d"


@pytest.fixture
def lenses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 rings of 56 px in two classes, of two radii; the working folder is empty."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-28:28, -28:28] + 0.5
    for kind, radius in (("large", 16), ("small", 10)):
        (tmp_path / "lenses" / kind).mkdir(parents=True)
        for i in range(12):
            ring = rng.uniform(3, 5) * np.exp(-((np.hypot(x, y) - radius) ** 2) / 6)
            image = ring + rng.normal(0, 0.3, ring.shape)
            np.save(tmp_path / "lenses" / kind / f"{i:02d}.npy", image.astype(np.float32)[None])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "lenses"


def test_it_is_the_one_that_was_measured():
    """docs/results.md says what this file is worth: another one is to be measured first."""
    assert shipped_names() == ("lens_small",)
    assert hashlib.sha256((FOLDER / "lens_small" / "backbone.safetensors").read_bytes()).hexdigest() == SHA256
    config = json.loads((FOLDER / "lens_small" / "config.json").read_text())
    recipe = load_recipe("lenses_minute")
    assert config["pooling"] == recipe.features.pooling == "joined"
    assert config["backbone"]["architecture"] == recipe.model.name
    assert config["backbone"]["width"] == recipe.model.options["width"]


def test_it_is_loaded_by_its_name_and_gives_finite_features(lenses):
    backbone = load_backbone("lens_small")
    raw = torch.from_numpy(np.stack([np.load(path) for path in sorted(lenses.rglob("*.npy"))]))
    features = backbone.fitted(raw.numpy())(raw).features
    assert features.shape == (24, 156 + backbone.backbone.embed_dim)
    assert features.isfinite().all()
    untrained = untrained_backbone("lens_small")
    assert untrained.mean.equal(backbone.backbone.mean)
    assert not untrained.layers[0].weight.equal(backbone.backbone.layers[0].weight)


@pytest.mark.usefixtures("no_onnx")
def test_commands_take_its_name_and_write_nothing_of_that_name(lenses, capsys):
    assert cli.main(["fit", "lens_small", "fitted", "--data", str(lenses)]) == 0
    assert ssl_lens.load_backbone("fitted").pooling == "joined"
    assert cli.main(["embed", "lens_small", str(lenses), "embeddings.npy"]) == 0
    evaluated = ["--data", str(lenses), "--probes", "knn", "--labels-per-class", "2", "--seeds", "1", "--untrained"]
    assert cli.main(["evaluate", "lens_small", *evaluated, "--out", "found"]) == 0, capsys.readouterr().err
    assert not Path("lens_small").exists()


def test_a_folder_of_the_same_name_comes_first_and_no_change_is_taken(lenses):
    assert is_shipped("lens_small")
    assert folder_of("lens_small") == FOLDER / "lens_small"
    with pytest.raises(InputError, match="model.width=8 cannot change lens_small"):
        ssl_lens.fit("lens_small", "out", ["model.width=8"], data=lenses)
    Path("lens_small").mkdir()
    assert folder_of("lens_small") == Path("lens_small")
    with pytest.raises(InputError, match="lens_small is neither a run"):
        load_backbone("lens_small")
