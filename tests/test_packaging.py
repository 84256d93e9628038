"""What an installed package holds and needs, read from pyproject.toml and from the built files."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from ssl_lens.extras import EXTRAS, WHOLE, what_to_install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FIXED = ("torch", "timm", "lightly", "e2cnn", "faiss-cpu", "numpy", "scikit-learn", "accelerate")
BESIDE = ("CHANGELOG.md", "CITATION.cff", "constraints.txt")  # the package in a source distribution
SHIPPED = ["py.typed", *(f"recipes/{file.relative_to(ROOT / 'recipes')}" for file in (ROOT / "recipes").rglob("*.*"))]
SHIPPED += [f"weights/lens_small/{name}" for name in ("config.json", "backbone.safetensors")]


def distributions(extra: str | None) -> set[str]:
    """Everything that the core or an extra asks for by itself, extras within it resolved."""
    listed = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    found: set[str] = set()
    for requirement in listed:
        name = re.match(r"[\w.-]+", requirement).group()
        if name == "ssl_lens":
            for inner in re.search(r"\[(.*?)\]", requirement).group(1).split(","):
                found |= distributions(inner.strip())
        else:
            found.add(name)
    return found


@pytest.mark.parametrize("library", EXTRAS)
def test_the_extra_that_an_error_names_holds_the_library(library: str) -> None:
    names = set(packages_distributions().get(library, [library]))  # a library that is not installed is called alike
    assert names & distributions(EXTRAS[library])
    assert not names & distributions(None)


def test_every_distribution_of_an_extra_is_known_to_the_errors() -> None:
    installed = {name for library, names in packages_distributions().items() if library in EXTRAS for name in names}
    for extra in ("data", "train", "simulate", "onnx", "all"):
        assert distributions(extra) - installed == set(), extra


def test_the_fixed_packages_are_in_all() -> None:
    assert set(FIXED) <= distributions(None) | distributions("all")


def test_what_is_not_of_ours_has_no_extra() -> None:
    assert what_to_install(ModuleNotFoundError("x", name="no_such_library"), "pretrain") is None
    assert what_to_install(ModuleNotFoundError("x"), "pretrain") is None


@pytest.mark.parametrize(
    ("command", "library", "extra"),
    [
        ("simulate", "astropy.io", "simulate"),
        ("simulate", "lenstronomy", "simulate"),
        ("pretrain", "h5py", "train"),
        ("pretrain", "lenstronomy", "simulate"),
        ("data", "h5py", "data"),
        ("export", "onnx", "onnx"),
    ],
)
def test_one_extra_is_enough_for_a_command(command: str, library: str, extra: str) -> None:
    line = what_to_install(ModuleNotFoundError("x", name=library), command)
    assert line == f"{library.partition('.')[0]} is not installed; run: pip install 'ssl_lens[{extra}]'"
    if command in WHOLE:
        assert distributions("data") <= distributions(WHOLE[command])


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation


def test_constraints_pin_what_is_asked_for() -> None:
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    asked = distributions(None) | distributions("test")
    assert {name.lower().replace("_", "-") for name in asked} <= {name.lower().replace("_", "-") for name in pinned}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_the_built_package_holds_its_recipes(tmp_path: Path, kind: str) -> None:
    """Built in a copy, where nothing was built before."""
    copy = tmp_path / "copy"
    for folder in ("ssl_lens", "recipes", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", *BESIDE):
        shutil.copy(ROOT / file, copy)
    code = f"from setuptools import build_meta; build_meta.build_{kind}('out')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (built,) = (copy / "out").iterdir()
    if kind == "wheel":
        names = zipfile.ZipFile(built).namelist()
    else:
        with tarfile.open(built) as archive:
            names = [member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()]
    assert sorted(
        name
        for name in names
        if name.startswith(("ssl_lens/recipes/", "ssl_lens/weights/")) or name.endswith("py.typed")
    ) == sorted(f"ssl_lens/{name}" for name in SHIPPED)
    modules = {f"ssl_lens/{file.relative_to(ROOT / 'ssl_lens')}" for file in (ROOT / "ssl_lens").rglob("*.py")}
    assert modules <= set(names)
    foreign = {name.split("/")[0] for name in names} - {"ssl_lens"}
    if kind == "wheel":
        assert {name for name in foreign if not name.endswith(".dist-info")} == set()
    else:  # setuptools would take tests/test_*.py by itself, and leave out what they import
        assert {"LICENSE", "README.md", *BESIDE} <= foreign
        assert "tests" not in foreign
