"""The documents in docs/: keys, files, tables and shown outputs are the code's; every command of the guide to images
runs, on small data, and those of the others parse."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, get_args

import documents
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from shard_files import member, npy, write_tar
from tiny_run import RECIPE, write_labelled_images, write_run

from ssl_lens.cli import main as cli
from ssl_lens.data.folders.layouts import LayoutName, named_layout
from ssl_lens.recipe.recipe import VALID_KEYS
from ssl_lens.simulation.parameters import Parameters

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
DOCS["CONTRIBUTING.md"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GUIDE = "data.md"
COMMANDS = sorted(set(documents.commands(DOCS[GUIDE])))
OTHERS = sorted({command for name, text in DOCS.items() if name != GUIDE for command in documents.commands(text)})

# What is made smaller. Recipes become a tiny one of the same name; each is built and stepped by test_build.py.
SMALLER = (
    ("{000..099}", "{000..002}"),
    ("--count 30000", "--count 6"),
    ("--count 3000", "--count 3"),
    ("--count 9000", "--count 3"),
    ("--workers 2", "--workers 1"),  # processes: test_simulate.py
    ("data.workers=4", "data.workers=0"),  # processes: test_stream.py
    ("eval/knn.py RUN", "eval/knn.py RUN --labels-per-class 2 --seeds 1"),
    ("eval/linear_probe.py RUN", "eval/linear_probe.py RUN --labels-per-class 2 --seeds 1"),
    ("benchmarks/data.py", "benchmarks/data.py --repeats 1 --gigabytes 0.2"),
    ("benchmarks/simulate.py", "benchmarks/simulate.py --repeats 1"),
    ("eval/finetune.py RUN", "eval/finetune.py RUN --labels 3 --seeds 1 --epochs 1"),
)
TINY_RECIPE = f"""{RECIPE.replace("epochs: 20", "epochs: 1, warmup_epochs: 0")}
simulate: {{count_per_class: 2}}
run: {{folder: made_run, device: cpu}}
"""


class Known(NamedTuple):
    """What a command needs in its folder, what it must leave there, and its exit status."""

    needs: tuple[str, ...]
    makes: tuple[str, ...]
    status: int = 0


_RUN = "made_run/metrics.jsonl"
_PACK = ("OUT/images.npy", "OUT/images.csv", "OUT/images.sha256", "OUT/manifest.json")
_SIMULATE = "python pretrain.py recipes/esvit_micro.yaml simulate.model=model_ii simulate.image_size=null "
KNOWN = {
    "accelerate launch pretrain.py recipes/esvit_equiv.yaml 'data.path=TARS/{000..099}.tar' data.workers=4": Known(
        ("TARS",), (_RUN,)
    ),
    "python pretrain.py recipes/esvit_equiv.yaml data.path=LABELLED data.exclude=NAMES": Known(
        ("LABELLED", "NAMES"), (_RUN,)
    ),
    _SIMULATE + "simulate.pixel_scale_arcsec=null 'simulate.set={shear: [0, 0.1]}'": Known((), (_RUN,)),
    "python eval/knn.py RUN --data LABELLED --split NAMES": Known(
        ("RUN", "LABELLED", "NAMES"), ("RUN/eval/knn/results.csv",)
    ),
    "python eval/linear_probe.py RUN --data LABELLED --table FILE": Known(
        ("RUN", "LABELLED", "FILE"), ("RUN/eval/linear/results.csv",)
    ),
    "python eval/finetune.py RUN --data lenses --target axion_mass_ev --log-target axion_mass_ev": Known(
        ("RUN", "lenses"), ("RUN/eval/regression/results.csv",)
    ),
    "ssl-lens views recipes/esvit_equiv.yaml data.path=DIR data.stretch=asinh --out views.png": Known(
        ("DIR",), ("views.png",)
    ),
    "ssl-lens data pack DIR OUT": Known(("DIR",), _PACK),
    "ssl-lens data pack DIR OUT --mask-value 100 --sizes crop": Known(("DIR",), _PACK),
    "ssl-lens data check bologna": Known(
        ("bologna",), tuple(f"checks/bologna/{name}" for name in ("check.json", "contact_sheet.png", "histograms.png"))
    ),
    "ssl-lens data check DIR --recipe recipes/esvit_equiv.yaml data.stretch=log data.probe=LABELLED": Known(
        ("DIR", "LABELLED"), ("checks/DIR/check.json",)
    ),
    "ssl-lens data check DIR --split NAMES": Known(("DIR", "NAMES"), ("checks/DIR/check.json",)),
    "ssl-lens data check DIR --against LABELLED --out OUT": Known(("DIR", "LABELLED"), ("OUT/check.json",), 1),
    "ssl-lens simulate lenses --model model_i --count 30000 --seed 1 --workers 2": Known(
        (), ("lenses/parameters.csv", "lenses/axion/axion_000001.npy")
    ),
    "ssl-lens simulate varied --count 3000 --set einstein_radius_arcsec=0.8,1.6 shear=0,0.1 lens_light=0,1": Known(
        (), ("varied/parameters.csv",)
    ),
    "ssl-lens simulate gri --count 3000 --image-size 64 --pixel-scale-arcsec 0.1 --set source_colour_mag=0,-0.3,-0.5 "
    "lens_colour_mag=0,-0.9,-1.4": Known((), ("gri/parameters.csv",)),
    "ssl-lens simulate pairs --count 3000 --renderings 2": Known((), ("pairs/cdm/cdm_000000_1.npy",)),
    "ssl-lens simulate pairs --count 9000 --renderings 2 --randomised --image-size 64 --pixel-scale-arcsec 0.1": Known(
        (), ("pairs/axion/axion_000000_1.npy",)
    ),
    "ssl-lens simulate real --count 3000 --galaxies DIR": Known(("DIR",), ("real/parameters.csv",)),
    "python benchmarks/data.py --out OUT": Known((), ("OUT/data.json", "OUT/memory.json")),
    "python benchmarks/simulate.py --out OUT": Known((), ("OUT/simulate.json",)),
}
_SLOW = pytest.mark.slow  # each benchmark measures for minutes, though its sets are small here


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever a command may need, under the name that the guides give it."""
    root = tmp_path_factory.mktemp("docs")
    labelled = write_labelled_images(root / "LABELLED", per_class=10)
    write_labelled_images(root / "DIR", per_class=10)  # the same pixels: leaks for --against
    names = [f"{kind}/{i:03d}.npy" for kind in ("arc", "ring") for i in range(3)]
    (root / "NAMES").write_text("\n".join(names) + "\n", encoding="utf-8")
    paths = sorted(path.relative_to(labelled).as_posix() for path in labelled.rglob("*.npy"))
    table = [f"{path},{'abcd'[i % 2]},{'test' if i % 5 == 0 else ''}" for i, path in enumerate(paths)]
    (root / "FILE").write_text("\n".join(["name,label,split", *table]), encoding="utf-8")
    for shard in range(3):
        images = [member(f"{i}.npy", npy(np.load(labelled / paths[i]))) for i in range(shard, 9, 3)]
        write_tar(root / "TARS" / f"{shard:03d}.tar", images)
    assert cli.main(f"simulate {root}/lenses --count 24 --image-size 40 --pixel-scale-arcsec 0.12".split()) == 0
    for name in ("esvit_equiv", "esvit_micro"):
        (root / "recipes").mkdir(exist_ok=True)
        (root / "recipes" / f"{name}.yaml").write_text(TINY_RECIPE, encoding="utf-8")
    return root


@pytest.fixture
def folder(
    inputs: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """An empty working directory with the recipes."""
    monkeypatch.setenv("SSL_LENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(inputs / "recipes")
    return tmp_path


def run(command: str) -> int:
    """Exit status of a command; in this process, as each would import torch for seconds."""
    words = documents.words_of_the_tool(command)
    if words is None:
        program, *arguments = shlex.split(command.removeprefix("python "))
        return subprocess.run([sys.executable, str(ROOT / program), *arguments], check=False).returncode
    threads = torch.get_num_threads()
    try:
        return cli.main(words)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(threads)


def smaller(command: str) -> str:
    for found, put in SMALLER:
        command = command.replace(found, put)
    return command


@pytest.mark.parametrize(
    "command", [pytest.param(command, marks=[_SLOW] if "benchmarks/" in command else []) for command in COMMANDS]
)
def test_every_command_runs(command: str, folder: Path, inputs: Path, request: pytest.FixtureRequest) -> None:
    assert command in KNOWN, "a command that this test does not know: say what it needs and what it makes"
    known = KNOWN[command]
    for name in known.needs:
        if name == "RUN":
            write_run(folder / "RUN")
        elif name == "bologna":
            (folder / name).symlink_to(request.getfixturevalue("lens_data") / "bologna_fits" / "ground_based")
        else:
            (folder / name).symlink_to(inputs / name)
    assert not [made for made in known.makes if (folder / made).exists()]
    assert run(smaller(command)) == known.status
    assert [made for made in known.makes if not (folder / made).is_file()] == []


@pytest.mark.parametrize("command", OTHERS)
def test_the_commands_of_the_other_documents_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = documents.words_of_the_tool(command)
    if words is None:
        assert (ROOT / shlex.split(command)[1]).is_file()
    else:
        documents.parse(words)


def test_no_command_is_known_that_is_nowhere() -> None:
    assert sorted(KNOWN) == COMMANDS
    assert [found for found, _ in SMALLER if not any(found in command for command in COMMANDS)] == []


def test_the_shown_check_is_what_it_prints(lens_data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bologna").symlink_to(lens_data / "bologna_fits" / "ground_based")
    shown = re.search(r"^( {4}bologna: .*?)\n\n", DOCS["data.md"], flags=re.MULTILINE | re.DOTALL).group(1)
    assert cli.main(["data", "check", "bologna"]) == 0
    assert capsys.readouterr().out.splitlines() == [line.removeprefix("    ") for line in shown.splitlines()]
    assert cli.main(["data", "check", "bologna", "--mask-value", "100"]) == 0
    (highest,) = re.findall(r"`--mask-value 100`, band 3 ends at ([\de.-]+)\.", DOCS["data.md"])
    assert f"{float(capsys.readouterr().out.splitlines()[8].split()[2]):.2g}" == highest


def test_the_python_example_runs(folder: Path, inputs: Path) -> None:
    assert cli.main(["data", "pack", str(inputs / "DIR"), "OUT"]) == 0
    (example,) = re.findall(r"```python\n(.*?)```", DOCS["data.md"], flags=re.DOTALL)
    names: dict[str, object] = {"numpy": np}
    exec(example, names)
    assert names["images"].shape == (20, 1, 40, 40)


@pytest.mark.parametrize("name", DOCS)
def test_keys_and_files_exist(name: str) -> None:
    assert documents.keys(DOCS[name]) <= set(VALID_KEYS)
    assert [file for file in documents.files(DOCS[name]) if not (ROOT / file).is_file()] == []


def test_the_map_names_folders_and_modules_that_exist_and_every_room() -> None:
    named = re.findall(r"`([\w/]+(?:/|\.py))`", DOCS["architecture.md"])
    assert [name for name in named if not ((ROOT / name).exists() or (ROOT / "ssl_lens" / name).exists())] == []
    rooms = {f"{path.parent.name}/" for path in (ROOT / "ssl_lens").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"^\| `(\w+/)` \|", DOCS["architecture.md"], flags=re.MULTILINE))
    (top,) = re.findall(r"modules at the top: (.*?)\.", DOCS["architecture.md"])
    assert [name for name in re.findall(r"`(\w+)`", top) if not (ROOT / "ssl_lens" / f"{name}.py").is_file()] == []


def test_the_table_of_ranges_has_every_parameter_and_its_default() -> None:
    table = re.search(r"\*\*Ranges\*\*.*?\n\n(.*?)\n\n", DOCS["data.md"], flags=re.DOTALL).group(1)
    named = []
    for row in table.splitlines()[2:]:
        keys, defaults, _ = row.strip("| ").split(" | ")
        keys, shown = re.findall(r"`(\w+)`", keys), defaults.split("; ")
        for key, text in zip(keys, shown * len(keys) if len(shown) == 1 else shown, strict=True):
            default = Parameters.model_fields[key].default
            numbers = None if text in ("not set", "the model's") else set(map(float, text.split(" ")[0].split(",")))
            assert numbers == (None if default is None else set(default)), key
        named += keys
    assert sorted([*named, "noise", "orientation", "subhalo_scatter", "distances"]) == sorted(Parameters.model_fields)


def test_the_table_of_layouts_shows_them_all() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| `([^`]*FILE)` \|", DOCS["data.md"], flags=re.MULTILINE)
    shown = {name: folders for names, folders in rows for name in re.findall(r"\w+", names)}
    assert ["auto", "folders", *shown] == list(get_args(LayoutName))
    first = {names.split("`")[1]: folders for names, folders in rows}  # the others of a row differ by their number
    assert first == {name: named_layout(name).shown for name in first}
