"""Walls of words: the rooms below speak of their own arguments; `recipe/` and `cli/` name keys and flags."""

import ast
import re
from pathlib import Path

import pytest

from ssl_lens.recipe.recipe import VALID_KEYS

ROOT = Path(__file__).parents[1]
ABOVE = {"recipe", "cli"}  # they name keys and flags, and translate what comes from below
FILES = sorted(
    path.relative_to(ROOT) for path in (ROOT / "ssl_lens").glob("*/**/*.py") if path.parts[-2] not in {"recipes"}
)
BELOW = [file for file in FILES if file.parts[1] not in ABOVE]
KEYS = re.compile(rf"(?<![\w./])(?:{'|'.join(re.escape(key) for key in VALID_KEYS if '.' in key)})(?![\w.]\w|\w)")
FLAGS = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def texts(file: Path) -> list[str]:
    """All string literals, docstrings and parts of f-strings among them."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("file", BELOW, ids=str)
def test_the_rooms_below_name_neither_keys_nor_flags(file: Path) -> None:
    assert [found for text in texts(file) for found in (*KEYS.findall(text), *FLAGS.findall(text))] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("set data.path=DIR", ["data.path"]),
        ("raise views.lens_safe.probability.", ["views.lens_safe.probability"]),
        ("model.stem.group and model.patch_size", ["model.stem.group", "model.patch_size"]),
        ("`data.path_of` in ssl_lens.data.path, run.foldering", []),
    ],
)
def test_keys_are_seen(text: str, found: list[str]) -> None:
    assert KEYS.findall(text) == found


def test_flags_are_seen() -> None:
    assert FLAGS.findall("give --labels-per-class, --k 3; x--y, a -- b, -k") == ["--labels-per-class", "--k"]
