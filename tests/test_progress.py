"""Off a terminal no bar is drawn: log files hold plain lines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def choices() -> list[tuple[str, list[ast.expr]]]:
    """Every call of tqdm in the package: where it is, and what its `disable` is, a variable's values included."""
    found = []
    for file in sorted((ROOT / "ssl_lens").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        assigned = [node for node in nodes if isinstance(node, ast.Assign)]
        for call in nodes:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "tqdm":
                given = [keyword.value for keyword in call.keywords if keyword.arg == "disable"]
                names = {value.id for value in given if isinstance(value, ast.Name)}
                given += [node.value for node in assigned for target in node.targets if ast.unparse(target) in names]
                found.append((f"{file.relative_to(ROOT)}:{call.lineno}", given))
    return found


@pytest.mark.parametrize(("where", "given"), choices(), ids=[where for where, _ in choices()])
def test_every_bar_is_only_drawn_on_a_terminal(where: str, given: list[ast.expr]) -> None:
    """`disable=None` is tqdm's word for it."""
    assert any(isinstance(part, ast.Constant) and part.value is None for value in given for part in ast.walk(value))
