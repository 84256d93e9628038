"""The door: overview, version, unknown commands, what `--help` may import, errors in one line."""

import ast
import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from ssl_lens.cli import main as cli
from ssl_lens.cli.console import show_progress

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "sklearn", "scipy", "matplotlib", "pandas", "timm", "accelerate", "lenstronomy", "astropy")


def test_the_overview_shows_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, line in cli.COMMANDS.items():
        assert f"  {name} " in shown
        assert line in shown


def test_every_command_is_a_module_and_every_module_with_run_a_command() -> None:
    """What has no `run` is shared by the commands."""
    found = set()
    for file in (REPOSITORY / "ssl_lens" / "cli").glob("*.py"):
        functions = {node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)}
        if "run" in functions:
            assert "add_arguments" in functions, file
            found.add(file.stem)
    assert found == set(cli.COMMANDS)


def test_no_command_at_all_shows_the_overview_and_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "pretrain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("pretrian", "error: unknown command pretrian; the nearest is pretrain\n"),
        ("xyz", f"error: unknown command xyz; there are {', '.join(cli.COMMANDS)}\n"),
    ],
)
def test_an_unknown_command(capsys: pytest.CaptureFixture[str], given: str, line: str) -> None:
    assert cli.main([given]) == 2
    assert capsys.readouterr().err == line


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ssl-lens {version('ssl_lens')}\n"


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_help_imports_nothing_heavy(command: str | None) -> None:
    """A fresh process, as what this one has imported would hide it."""
    words = ["--help"] if command is None else [command, "--help"]
    code = (
        "import sys\n"
        "from ssl_lens.cli.main import main\n"
        f"try:\n    status = main({words!r})\nexcept SystemExit as done:\n    status = done.code\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: ssl-lens" in done.stdout


def test_python_m_is_the_same_door() -> None:
    command = [sys.executable, "-m", "ssl_lens", "recipes", "none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipe none does not exist")


@pytest.mark.parametrize(
    "launcher", ["pretrain.py", *(f"eval/{path.name}" for path in (REPOSITORY / "eval").glob("*.py"))]
)
def test_launchers_pass_their_arguments_on(launcher: str) -> None:
    """They hold imports and one call that ends the process with the status."""
    body = ast.parse((REPOSITORY / launcher).read_text(encoding="utf-8")).body
    assert all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.If) for node in body)
    (guarded,) = (node for node in body if isinstance(node, ast.If))
    (statement,) = guarded.body
    assert ast.unparse(statement).startswith("sys.exit(")


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_debugging_shows_the_traceback_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_LENS_DEBUG", "1")
    assert cli.main(["views", str(tmp_path / "none.yaml")]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: recipe ")


def test_a_library_of_an_extra_that_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "command_module", _needing_lenstronomy)
    assert cli.main(["simulate"]) == 2
    assert capsys.readouterr().err == "error: lenstronomy is not installed; run: pip install 'ssl_lens[simulate]'\n"


class _Needing:
    @staticmethod
    def add_arguments(parser: object) -> None: ...

    @staticmethod
    def run(options: object) -> None:
        raise ModuleNotFoundError("No module named 'lenstronomy.Util'", name="lenstronomy.Util")


def _needing_lenstronomy(name: str) -> type[_Needing]:
    return _Needing


def test_a_library_that_no_extra_holds_is_our_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "command_module", _importing_nonsense)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        cli.main(["simulate"])


def _importing_nonsense(name: str) -> type[_Needing]:
    raise ModuleNotFoundError("No module named 'no_such_library'", name="no_such_library")


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"class_{i:03d}").mkdir()
        np.save(tmp_path / f"class_{i:03d}" / "x.npy", np.random.default_rng(i).normal(size=(8, 8)))
    out = tmp_path.parent / "out"
    command = [sys.executable, "-u", "-m", "ssl_lens", "data", "check", tmp_path, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141


def test_only_our_own_progress_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Other packages log at level INFO too, ONNX's optimiser by the hundred."""
    show_progress()
    logging.getLogger("onnx_ir").info("Replaced initializer")
    logging.getLogger("ssl_lens.data").info("packing")
    logging.getLogger("onnx_ir").warning("broken")
    assert [record.message for record in caplog.records] == ["packing", "broken"]


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("ssl_lens"), "level", logging.NOTSET)
    monkeypatch.setenv("RANK", "1")
    show_progress()
    logging.getLogger("ssl_lens.data").info("packing")
    logging.getLogger("ssl_lens.data").warning("damaged")
    assert [record.message for record in caplog.records] == ["damaged"]


def test_arguments_come_in_any_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["views", "--out", str(tmp_path / "x.png"), "esvit_micro", "optim.epoch=3"]
    assert cli.main(given) == 2
    assert "unknown key optim.epoch=3; the nearest valid key is optim.epochs" in capsys.readouterr().err
