"""What a document says that can be held against the code: its commands, keys and files."""

import argparse
import ast
import re
import shlex
from pathlib import Path

from ssl_lens.cli import main as cli
from ssl_lens.recipe.recipe import Recipe, load_recipe

ROOT = Path(__file__).parents[1]
_BEGINNINGS = ("ssl-lens ", "python ", "accelerate launch ")


def commands(text: str) -> list[str]:
    """The indented commands, without the comments behind them."""
    lines = re.findall(r"^ {4}(\S.*?)(?: +# .*)?$", text, flags=re.MULTILINE)
    return [line for line in lines if line.startswith(_BEGINNINGS)]


def keys(text: str) -> set[str]:
    """Keys of recipes, such as `data.path`; in Python, `run.folder` is not a key."""
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    found = set(re.findall(rf"\b(?:{'|'.join(Recipe.model_fields)})\.[a-z][a-z_.]*[a-z]", text))
    return {key for key in found if not key.endswith((".py", ".yaml", ".png", ".md"))}


def files(text: str) -> set[str]:
    """Files of the repository, from its root, and those that links lead to; `NAME` stands for one to be written."""
    folders = "recipes|eval|benchmarks|docs|tests|ssl_lens"
    named = re.findall(rf"\b(?:{folders})/[\w./]+\.(?:py|yaml|txt|md|png)\b", text)
    linked = re.findall(r"\]\(([\w./]+\.(?:md|cff|png))(?:#[\w-]*)?\)", text)
    return {file for file in (*named, *linked) if "NAME" not in file}


def words_of_the_tool(command: str) -> list[str] | None:
    """What `ssl-lens` gets of a command, through a launcher too; None for other programs, such as benchmarks."""
    words = shlex.split(command)
    if words[0] == "ssl-lens":
        return words[1:]
    script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    if words[script] != "pretrain.py" and not words[script].startswith("eval/"):
        return None
    tree = ast.parse((ROOT / words[script]).read_text(encoding="utf-8"))
    (passed,) = (node for node in ast.walk(tree) if isinstance(node, ast.List))
    given: list[str] = []
    for element in passed.elts:
        given += [str(element.value)] if isinstance(element, ast.Constant) else words[script + 1 :]
    return given


def parse(words: list[str]) -> argparse.Namespace:
    """Parses what `ssl-lens` gets, and the keys and values of a recipe that it names.

    Raises: SystemExit for an argument that is none, InputError for a recipe that is none.
    """
    name, *rest = words
    options = cli._parse(cli._parser(name, cli.command_module(name)), rest)
    if name in ("pretrain", "views"):
        load_recipe(options.recipe, options.overrides)
    return options
