"""Recipes from strangers: one line each, at once; and what names a folder of theirs."""

from pathlib import Path

import pytest
from hostile import place, refused
from tiny_run import write_run

from ssl_lens.cli.main import main
from ssl_lens.recipe.network import load_starting_weights
from ssl_lens.recipe.recipe import load_recipe
from ssl_lens.representation.frozen import load_backbone

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "an alias bomb": LAUGHS,
    "an alias of itself": "data: &a {probe: *a}\n",
    "a merged section": "data: &a {path: x}\nmodel:\n  <<: *a\n",
    "lists without end": "[" * 20_000,
    "sections without end": "{a: " * 5000,
    "lines without end": "".join("  " * i + "a:\n" for i in range(100)),
    "too long": "#" * 70_000,
    "bytes": bytes(range(256)),
    "Latin-1": "data: {path: é}".encode("latin-1"),
    "a NUL": "data: {path: 'a\0b'}",
    "an escaped NUL": 'data: {path: "a\\0b"}',
    "half a letter": 'data: {path: "\\ud800"}',
    "a number without end": "seed: " + "9" * 5000,
    "a number beyond integers": "seed: 99999999999999999999",
    "NaN": "optim: {lr: .nan}",
    "infinity": "optim: {lr: .inf}",
    "a negative number": "optim: {epochs: -1}",
    "no batch": "optim: {batch_size: 0}",
    "a date that is none": "seed: 2001-99-99",
    "a date": "seed: 2001-01-01",
    "a call": "!!python/object/apply:os.system ['touch escaped']",
    "a set": "!!set {a, b}",
    "keys that are lists": "? [a, b]\n: c\n",
    "keys that are numbers": "1: 2\n",
    "a key of nothing": "? \n: 3\n",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "another YAML": "%YAML 9.9\n---\nseed: 1\n",
    "a tab": "seed:\t1\n\tdata: 2",
    "a list": "- 1\n",
    "a text": "just words\n",
    "a method that is a list": "method: {name: [1]}",
    "a method that is none": "method: null",
    "a model that is a number": "model: 3",
    "a model of no name": "model: {name: null}",
    "a model of a list": "model: {name: [swin_tiny]}",
    "a billion blocks": "model: {depths: [1000000000, 2]}",
    "a million blocks": "model: {depths: [1000000, 2]}",
    "channels beyond integers": "model: {embed_dim: 99999999999999999999}",
    "channels beyond floats": "model: {embed_dim: 1e400}",
    "filters of 100001 px": "model: {stem: {kernel_size: 100001}}",
    "a stem of a list": "model: {stem: {group: [1]}}",
    "a network of a hub": "model: {name: 'timm/hf-hub:stranger/x'}",
    "crops beyond pixels": "views: {global_size: 1000000000000}",
    "epochs beyond time": "optim: {epochs: 1000000000000000000000}",
    "a policy that is a list": "views: {policy: [1]}",
    "a folder that is a number": "run: {folder: 3}",
    "a simulation of a number": "simulate: {set: 3}",
    "the commands of a terminal": 'data: {layout: "\\e[31m"}',
}


@pytest.mark.parametrize("what", TEXTS)
def test_recipes(tmp_path: Path, what: str) -> None:
    text = TEXTS[what]
    (tmp_path / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(lambda: load_recipe(tmp_path / "recipe.yaml"), "recipe.yaml")
    assert not Path("escaped").exists()


@pytest.mark.parametrize("what", ["pipe", "folder", "endless device", "link to itself", "terabyte"])
def test_what_is_not_a_recipe(tmp_path: Path, what: str) -> None:
    place(tmp_path / "recipe.yaml", what)
    refused(lambda: load_recipe(tmp_path / "recipe.yaml"), "recipe.yaml")


@pytest.mark.parametrize("value", ["[" * 5000, "{a: " * 500, "9" * 5000, '"\\0"', "!!python/name:os.system x"])
def test_overrides(tmp_path: Path, value: str) -> None:
    (tmp_path / "recipe.yaml").write_text("")
    refused(lambda: load_recipe(tmp_path / "recipe.yaml", [f"data.path={value}"]), "override data.path=")


@pytest.mark.parametrize("what", ["pipe", "endless device", "bytes"])
def test_commands_and_starting_weights_refuse_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    run = write_run(tmp_path / "run")
    backbone = load_backbone(run).backbone
    place(run / "backbone.json", what)
    line = refused(lambda: load_starting_weights(backbone, str(run)), "backbone.json")
    (tmp_path / "images").mkdir()
    for words in (
        ["evaluate", str(run), "--data", str(tmp_path / "images")],
        ["embed", str(run), str(tmp_path / "images"), str(tmp_path / "out.parquet")],
        ["predict", str(run), str(tmp_path / "images"), str(tmp_path / "out.csv")],
        ["export", str(run), str(tmp_path / "out")],
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"error: {line}\n"
