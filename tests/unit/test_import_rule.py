"""A room imports only what stands below it, anywhere in its code, and says nothing about other packages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "models": set(),
    "tools": {"models"},
    "agents": {"models", "tools"},
    "runtime": {"models", "tools", "agents"},
}


def imported_modules(source: str) -> list[tuple[int, str]]:
    """Every module that a file imports, also inside functions and for type checkers, with its line.

    A name that is imported from a package counts as a module of it: ``from watchkeeper import runtime`` is
    an import of ``watchkeeper.runtime``.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "__import__",
            "import_module",
            "importlib.import_module",
        }:
            named = node.args[0] if node.args else None
            name = named.value if isinstance(named, ast.Constant) else ast.unparse(node)
            found.append((node.lineno, str(name)))
    return found


def offences(room: str, source: str) -> list[str]:
    """What a file of a room may not import."""
    wrong = []
    for line, module in imported_modules(source):
        parts = module.split(".")
        inside = parts[0] == "watchkeeper"
        allowed = {room, *MAY_IMPORT[room]}
        if module.startswith(".") or (inside and (len(parts) < 2 or parts[1] not in allowed)):
            wrong.append(f"{line}: {module}")
        elif parts[0] in {*MAY_IMPORT, "tests", "examples", "benchmarks"}:
            wrong.append(f"{line}: {module} (a room is imported as watchkeeper.{parts[0]})")
    return wrong


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) > 3
    found = {
        str(path.relative_to(ROOT)): wrong
        for path in files
        if (wrong := offences(room, path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import watchkeeper.runtime.store",
        "import watchkeeper",
        "from watchkeeper import runtime",
        "from watchkeeper.cli import output",
        "def f():\n    from watchkeeper.agents import Team",
        "import typing\nif typing.TYPE_CHECKING:\n    from watchkeeper.runtime import store",
        "from ..runtime import store",
        "from . import host",
        "import runtime.store",
        "from importlib import import_module\nimport_module('watchkeeper.agents')",
    ],
)
def test_the_rule_finds_what_breaks_it(source: str) -> None:
    assert len(offences("tools", source)) == 1


@pytest.mark.parametrize(
    "source",
    ["import os", "from watchkeeper.models import open_engine", "from watchkeeper.tools.host import Host"],
)
def test_the_rule_lets_pass_what_keeps_it(source: str) -> None:
    assert offences("tools", source) == []
