"""The recipes that the package brings along, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from ssl_lens.errors import InputError

FOLDER = Path(__file__).parents[1] / "recipes"
SUFFIXES = (".yaml", ".yml")


def recipe_names() -> tuple[str, ...]:
    """Names of all shipped recipes, in alphabetical order."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.yaml")))


def summary(name: str) -> str:
    """The first line of a shipped recipe, which says what it is for."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def recipe_path(name_or_file: str | Path) -> Path:
    """The file of a recipe: a shipped one by its name, any other by its path.

    A word without a slash and without `.yaml` is a name.

    Raises: InputError if there is none; the message names the nearest shipped recipe.
    """
    text = str(name_or_file)
    if "/" in text or text.endswith(SUFFIXES):
        if Path(text).is_file():
            return Path(text)
        raise InputError(f"recipe {text} does not exist; give a YAML file or a shipped recipe, {_nearest(text)}")
    if text in recipe_names():
        return (FOLDER / f"{text}.yaml").resolve()
    if Path(text).is_file():
        raise InputError(f"recipe {text} is not a shipped one; write ./{text} for the file of this name")
    raise InputError(f"recipe {text} does not exist; give a YAML file or a shipped recipe, {_nearest(text)}")


def _nearest(text: str) -> str:
    """The shipped recipe whose name is most like it, or all of them."""
    close = difflib.get_close_matches(Path(text).stem, recipe_names(), n=1, cutoff=0.6)
    return f"the nearest is {close[0]}" if close else f"one of {', '.join(recipe_names())}"
