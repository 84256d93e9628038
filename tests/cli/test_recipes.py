"""`ssl-lens recipes`: list, print, copy."""

from pathlib import Path

import pytest

from ssl_lens.cli import main as cli
from ssl_lens.recipe.library import recipe_names
from ssl_lens.recipe.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def test_lists_every_recipe_with_a_line_on_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(file.stem for file in RECIPES.glob("*.yaml"))
    for line in lines:
        assert 40 < len(line) <= 120
        assert "#" not in line


def test_prints_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "esvit_micro"]) == 0
    assert capsys.readouterr().out == (RECIPES / "esvit_micro.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(("given", "file"), [([], "esvit_micro.yaml"), (["mine.yaml"], "mine.yaml")])
def test_a_copy_is_the_same_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes", "esvit_micro", "--copy", *given]) == 0
    changed = {"run": {"folder"}}  # named after the file
    assert load_recipe(file).model_dump(exclude=changed) == load_recipe("esvit_micro").model_dump(exclude=changed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["esvit_micro", "--copy", "there.yaml"], "there.yaml exists already; give another file with --copy FILE"),
        (["esvit_micro", "--copy", "no/where.yaml"], "cannot write no/where.yaml: No such file or directory"),
        (
            ["esvit_mirco"],
            "recipe esvit_mirco does not exist; give a YAML file or a shipped recipe, the nearest is esvit_m",
        ),
        (["--copy"], "--copy needs the NAME of a recipe"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine")
    assert cli.main(["recipes", *words]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_all_names_load() -> None:
    for name in recipe_names():
        assert load_recipe(name).run.folder == f"runs/{name}"
