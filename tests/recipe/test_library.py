"""A recipe by its name or its file."""

import re
from pathlib import Path

import pytest

from ssl_lens.errors import InputError
from ssl_lens.recipe.library import recipe_names, recipe_path, summary

RECIPES = Path(__file__).parents[2] / "recipes"


def test_a_name_is_the_file_at_the_top_of_the_checkout() -> None:
    assert recipe_path("esvit_micro") == (RECIPES / "esvit_micro.yaml").resolve()
    assert recipe_names() == tuple(sorted(file.stem for file in RECIPES.glob("*.yaml")))


def test_a_name_wins_over_a_folder_and_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "esvit_micro").write_text("seed: 1")
    assert recipe_path("esvit_micro") == (RECIPES / "esvit_micro.yaml").resolve()
    assert recipe_path("./esvit_micro") == Path("./esvit_micro")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("esvit_mirco", "recipe esvit_mirco does not exist; .* the nearest is esvit_micro$"),
        ("recipes/esvit_micro.yaml", "recipe recipes/esvit_micro.yaml does not exist; .* the nearest is esvit_micro$"),
        ("zzz", f"one of {', '.join(recipe_names())}$"),
        ("mine", "recipe mine is not a shipped one; write ./mine for the file of this name"),
    ],
)
def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("seed: 1")
    with pytest.raises(InputError, match=message):
        recipe_path(given)


def test_the_summary_is_the_first_line() -> None:
    assert summary("dino_swin") == "DINO (view loss only) with Swin-T, full size, for one or more GPUs"


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_states_the_card_that_it_needs_and_its_pace(name: str) -> None:
    """In its head, in one sentence or two: GiB, or that none is needed; images/s, or that they are not measured."""
    head = recipe_path(name).read_text(encoding="utf-8").partition("\n\n")[0].split("\n")
    comments = " ".join(line.removeprefix("#").strip() for line in head if line.startswith("#"))
    (statement,) = re.findall(r"Card: (.*)", comments)
    assert re.match(r"(\d+ GiB\b|none is needed)", statement)
    assert re.search(r"[\d,]+ images/s on an? \w+|images/s: not measured", statement)
