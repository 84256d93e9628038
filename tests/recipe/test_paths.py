"""Paths in a recipe start at its folder, those of the command line at the working folder."""

from pathlib import Path

import pytest

from ssl_lens.recipe.paths import with_absolute_paths
from ssl_lens.recipe.recipe import load_recipe


def test_relative_paths_start_at_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    file = tmp_path / "recipes" / "mine.yaml"
    file.write_text("data: {path: ../lenses, exclude: splits/test.txt, probe: /labelled}\nrun: {folder: runs/mine}")
    monkeypatch.chdir("/")
    recipe = load_recipe(file)
    assert recipe.data.path == str(tmp_path / "lenses")
    assert recipe.data.exclude == str(tmp_path / "recipes" / "splits" / "test.txt")
    assert recipe.data.probe == "/labelled"
    assert recipe.run.folder == "runs/mine"


def test_weights_are_a_path_unless_they_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: {name: swin_micro, weights: ../run}")
    monkeypatch.chdir("/")
    assert load_recipe(file).model.weights == str(tmp_path.parent / "run")
    assert load_recipe(file, ["model.weights=net.pth"]).model.weights == "/net.pth"
    assert load_recipe(file, ["model.weights=null"]).model.weights is None
    file.write_text("model: {name: timm/resnet10t, weights: pretrained}")
    assert load_recipe(file).model.weights == "pretrained"


def test_overrides_start_at_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("data: {path: lenses, probe: labelled}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    recipe = load_recipe("../mine.yaml", ["data.path=mine", "data.exclude=names.txt"])
    assert recipe.data.path == str(tmp_path / "work" / "mine")
    assert recipe.data.exclude == str(tmp_path / "work" / "names.txt")
    assert recipe.data.probe == str(tmp_path / "labelled")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell leaves it as it is behind `key=`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    recipe = load_recipe("esvit_micro", ["data.path=~/images", "run.folder=~/run"])
    assert recipe.data.path == str(tmp_path / "images")
    assert recipe.run.folder == str(tmp_path / "run")


def test_a_saved_recipe_means_the_same_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("esvit_micro", ["data.path=lenses"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(recipe.to_yaml())
    monkeypatch.chdir("/")
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


@pytest.mark.parametrize("address", ["https://host/{00..09}.tar", "s3://bucket/x.tar", "pipe:cat x.tar", "/data"])
def test_addresses_stay(address: str) -> None:
    assert with_absolute_paths({"data": {"path": address}}, Path("/somewhere"))["data"]["path"] == address


def test_patterns_are_paths() -> None:
    tree = {"seed": 1, "data": {"path": "tars/{00..09}.tar", "stretch": "asinh"}}
    assert with_absolute_paths(tree, Path("/x")) == {
        "seed": 1,
        "data": {"path": "/x/tars/{00..09}.tar", "stretch": "asinh"},
    }


@pytest.mark.parametrize("tree", [{}, {"data": None}, {"data": 3}, {"data": {"path": 3}}, {"data": {"path": ""}}])
def test_what_is_not_a_path_is_left_to_the_recipe(tree: dict) -> None:
    assert with_absolute_paths(tree, Path("/x")) == tree
