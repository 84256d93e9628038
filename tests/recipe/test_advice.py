"""Advice names what can be changed: keys that there are, and what the recipe does not have already."""

import re

import pytest

from ssl_lens.engine.watch import BEST, INITIAL, WAVELETS, Shortfall
from ssl_lens.recipe.advice import advice_on
from ssl_lens.recipe.library import recipe_names
from ssl_lens.recipe.recipe import VALID_KEYS, load_recipe
from ssl_lens.representation.shipped import shipped_names

SHORT = {than: Shortfall(than, 0.7123, 0.8456, 0.0312, 1280) for than in (INITIAL, WAVELETS, BEST)}


@pytest.mark.parametrize("than", SHORT)
@pytest.mark.parametrize("recipe", ["lenses_cpu", "lenses_minute"])
@pytest.mark.parametrize("labels", [True, False])
def test_it_is_one_line_of_numbers_and_keys_that_there_are(than: str, recipe: str, labels: bool) -> None:
    line = advice_on(SHORT[than], load_recipe(recipe, ["data.probe=LABELLED"] if labels else []))
    assert "\n" not in line
    for number in ("1,280", "0.712", "0.846", "0.031"):
        assert number in line
    assert set(re.findall(r"\b(?:data|optim|simulate|features|run)\.[\w.]+\b", line)) <= set(VALID_KEYS)
    assert set(re.findall(r"ssl-lens pretrain (\w+)", line)) <= set(recipe_names())
    assert set(re.findall(r"ssl-lens fit (\w+)", line)) <= {*shipped_names(), "lens_wavelets"}
    assert ("data.probe" in line) == labels


@pytest.mark.parametrize(
    ("recipe", "change", "on_renderings"),
    [
        ("lenses_minute", "seed=1", True),
        ("lenses_cpu", "seed=1", False),
        ("lenses_cpu", "data.renderings=lens_number", True),
        ("lenses_minute", "data.path=DIR", False),
        ("lenses_cpu", "simulate.renderings=2", True),
    ],
)
def test_who_trains_on_renderings_is_not_told_to(recipe: str, change: str, on_renderings: bool) -> None:
    line = advice_on(SHORT[WAVELETS], load_recipe(recipe, [change]))
    assert ("lenses_minute" in line) != on_renderings
    assert ("simulate.count_per_class" in line) == (on_renderings and "data." not in change)
    assert "optim.lr" in line
    assert "ssl-lens fit lens_wavelets" in line
