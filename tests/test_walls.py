"""The walls between the rooms, read from the imports."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for folder in ("ssl_lens", "eval") for path in (ROOT / folder).rglob("*.py"))
FILES += [Path("pretrain.py")]


@functools.cache
def imports(file: Path) -> tuple[str, ...]:
    """Dotted names of all modules that a file imports, wherever in the file."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers(module: str) -> set[str]:
    return {
        file.as_posix()
        for file in FILES
        if any(name == module or name.startswith(f"{module}.") for name in imports(file))
    }


def test_only_the_recipe_reads_yaml() -> None:
    assert importers("ruamel") == {"ssl_lens/recipe/recipe.py"}
    assert importers("yaml") == set()


def test_e2cnn_is_imported_in_one_file() -> None:
    assert importers("e2cnn") == {"ssl_lens/backbones/steerable/convolution.py"}


@pytest.mark.parametrize(
    ("library", "file"),
    [
        ("fsspec", "ssl_lens/data/shards/shard_file.py"),
        ("h5py", "ssl_lens/data/formats/hdf5_file.py"),
        ("tifffile", "ssl_lens/data/formats/tiff_file.py"),
    ],
)
def test_a_format_is_known_to_one_file(library: str, file: str) -> None:
    assert importers(library) == {file}


def test_parquet_is_read_in_one_file_and_written_in_another() -> None:
    files = {"ssl_lens/data/folders/table_file.py", "ssl_lens/representation/embedding_file.py"}
    assert importers("pyarrow.parquet") == files
    assert importers("pyarrow") == files | {"ssl_lens/data/folders/tables.py"}  # the tables of packs


def test_no_pickle_is_ever_executed() -> None:
    """Files are read without it; the inert reader takes a pickle's opcodes apart by itself."""
    assert importers("pickle") == importers("joblib.load") == importers("dill") == set()
    assert not [file for file in FILES if "allow_pickle=True" in (ROOT / file).read_text(encoding="utf-8")]


def test_accelerate_stays_with_what_trains() -> None:
    allowed = {"ssl_lens/recipe/compose.py", "ssl_lens/evaluation/probes/trainer.py"}
    assert {file for file in importers("accelerate") if not file.startswith("ssl_lens/engine/")} == allowed


# What each room may import, besides itself and the base: every folder of the package has a line.
BASE = {"errors", "files", "launcher", "pictures", "schedules", "optim", "section", "transfer"}
WALLS = {
    "losses": set(),
    "views": set(),
    "backbones": set(),
    "data": set(),
    "simulation": {"data"},
    "runs": set(),
    "methods": {"losses", "views", "backbones"},
    "representation": {"backbones", "data", "runs"},
    "engine": {"methods", "backbones", "views", "data", "runs", "representation"},
    "recipe": {"losses", "views", "backbones", "data", "simulation", "runs", "methods", "representation", "engine"},
    "evaluation": {"backbones", "data", "runs", "representation", "recipe"},
    "cli": {
        *("views", "backbones", "data", "simulation", "runs", "methods", "representation", "recipe", "evaluation"),
        "engine",  # its InterruptedRun becomes an exit status
        "extras",
    },
}


def rooms_imported(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(file) if name.startswith("ssl_lens.")}


def test_every_folder_of_the_package_is_a_room_with_walls() -> None:
    assert {path.parent.name for path in (ROOT / "ssl_lens").glob("*/__init__.py")} == set(WALLS)


@pytest.mark.parametrize(
    "file", [file for file in FILES if len(file.parts) > 2 and file.parts[0] == "ssl_lens"], ids=str
)
def test_a_room_imports_only_what_its_walls_let_through(file: Path) -> None:
    room = file.parts[1]
    assert rooms_imported(file) <= WALLS[room] | BASE | {room, "__version__"}


@pytest.mark.parametrize("file", FILES, ids=Path.as_posix)
def test_manner(file: Path) -> None:
    """No keyword arguments passed through, no hasattr dispatch, no module named utils, files of one subject."""
    source = (ROOT / file).read_text(encoding="utf-8")
    assert "utils" not in file.stem
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.args.kwarg is None, f"**{node.args.kwarg.arg} in {node.name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("hasattr", "globals", "exec", "eval")
        assert not isinstance(node, ast.Global)
