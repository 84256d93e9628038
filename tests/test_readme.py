"""The README names only what exists: keys, files, options, and its Python example runs."""

import re
from pathlib import Path

import documents
import pytest
import torch

from ssl_lens.backbones import catalog
from ssl_lens.cli import main as cli
from ssl_lens.evaluation.arguments import finetune_parser, frozen_parser
from ssl_lens.recipe.recipe import VALID_KEYS, load_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = documents.commands(README)


def test_every_key_is_one_of_the_recipe() -> None:
    keys = documents.keys(README)
    assert len(keys) > 10
    assert keys <= set(VALID_KEYS)


def test_every_file_exists() -> None:
    files = documents.files(README)
    assert len(files) > 3
    assert [file for file in files if not (ROOT / file).is_file()] == []
    named = set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE))
    assert {path.stem for path in (ROOT / "recipes").glob("*.yaml")} <= named


def test_the_table_of_networks_has_them_all_with_their_parameters() -> None:
    rows = re.findall(r"^\| (\w+) +\| ([\d,]+) +\|", README, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(catalog.names())
    counts = {name: int(count.replace(",", "")) for name, count in rows}
    for name in ("eqcvt", "eqcvt_invariant", "steerable_cnn_c4", "harmonic_net", "canonical_etn", "resnet18"):
        backbone = catalog.build_backbone(name, {}, in_channels=1, image_size=64)
        modules = torch.nn.ModuleList([backbone, backbone.head(2)])
        assert sum(parameter.numel() for parameter in modules.parameters()) == counts[name]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python eval/")])
def test_evaluation_commands_parse(command: str) -> None:
    script, *arguments = command.split()[1:]
    if "finetune" in script:
        finetune_parser("").parse_args(arguments)
    else:
        parser = frozen_parser("")
        if "knn" in script:
            parser.add_argument("--whiten", type=int)
        parser.parse_args(arguments)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("ssl-lens ")])
def test_commands_of_the_tool_parse(command: str) -> None:
    cli._parser().parse_args(command.split()[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if "pretrain.py recipes" in command])
def test_pretraining_commands_name_a_recipe_and_its_keys(command: str) -> None:
    recipe, *overrides = command.split("pretrain.py ")[1].split()
    load_recipe(ROOT / recipe, overrides)


def test_the_python_example_gives_the_shapes_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an export of the network that the README pretrains, with the weights it starts from."""
    from ssl_lens.data.pixels.preprocess import Preprocess
    from ssl_lens.recipe import compose
    from ssl_lens.representation.frozen import FrozenBackbone

    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    recipe = load_recipe(ROOT / "recipes" / "esvit_equiv.yaml")
    frozen = FrozenBackbone(Preprocess.plain(1), compose.backbone(recipe, 1))
    monkeypatch.setattr("ssl_lens.representation.export.load_backbone", lambda path: frozen)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    shapes = [torch.Size(map(int, shape.split(","))) for shape in re.findall(r"\[(\d+(?:, \d+)+)\]", example)]
    assert [names["features"].view.shape, names["features"].regions.shape] == shapes
