"""The README names only what exists: keys, files, commands, and its Python example runs."""

import re
from pathlib import Path

import documents
import pytest
import torch
from accelerate.state import AcceleratorState

import ssl_lens
from ssl_lens.recipe.library import recipe_names
from ssl_lens.recipe.recipe import VALID_KEYS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = documents.commands(README)


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_key_is_one_of_the_recipe() -> None:
    keys = documents.keys(README)
    assert len(keys) > 8
    assert keys <= set(VALID_KEYS)


def test_every_file_exists_and_every_recipe_is_named() -> None:
    files = documents.files(README)
    assert len(files) > 7
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert set(recipe_names()) <= set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = documents.words_of_the_tool(command)
    assert words is not None
    documents.parse(words)


def test_every_extra_is_explained() -> None:
    from test_packaging import PROJECT

    extras = set(PROJECT["optional-dependencies"]) - {"test", "wandb"}
    assert set(re.findall(r"^\| `\[(\w+)\]`", README, flags=re.MULTILINE)) == extras


def test_every_verb_it_names_exists() -> None:
    named = set(re.findall(r"ssl_lens\.(\w+)\(", README))
    assert named >= {"pretrain", "simulate", "load_backbone"}
    listed = re.search(r"`ssl_lens\.(\w+)`, ((?:`\w+`,? (?:and )?)+)are there too", README)
    named |= {listed.group(1), *re.findall(r"`(\w+)`", listed.group(2))}
    assert named <= set(dir(ssl_lens))


def test_the_python_example_runs_and_gives_the_shapes_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    threads = torch.get_num_threads()
    try:
        exec(compile(example, "README.md", "exec"), names)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(threads)
    shapes = [torch.Size(map(int, shape.split(","))) for shape in re.findall(r"\[(\d+(?:, \d+)+)\]", example)]
    assert [names["out"].features.shape, names["out"].view.shape, names["out"].regions.shape] == shapes
