"""ASI05, Unexpected Code Execution: nothing that a model or a stranger writes becomes code.

What a fact's command may do in its sandbox is tried with real commands in tests/integration/test_sandbox.py.
"""

import ast
from pathlib import Path

import pytest

from watchkeeper.tools.confined import ConfinedHost
from watchkeeper.tools.documents import DocumentError, read_document
from watchkeeper.tools.host import LocalHost
from watchkeeper.tools.registry import Registry
from watchkeeper.tools.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
ROOMS = ("models", "tools", "agents", "runtime", "watchkeeper")
FORBIDDEN = {"eval", "exec", "compile"}
FORBIDDEN_OF_MODULES = {
    ("os", "system"), ("os", "popen"), ("pickle", "load"), ("pickle", "loads"), ("marshal", "loads"),
    ("yaml", "load"), ("yaml", "unsafe_load"), ("torch", "load"), ("subprocess", "getoutput"),
}  # fmt: skip


def calls() -> list[tuple[Path, ast.Call]]:
    found = []
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [(path, node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return found


def test_no_text_is_run_as_code_and_no_command_through_a_shell() -> None:
    seen = calls()
    assert len(seen) > 1000
    for path, call in seen:
        place = f"{path.relative_to(ROOT)}:{call.lineno}"
        if isinstance(call.func, ast.Name):
            assert call.func.id not in FORBIDDEN, place
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            if (call.func.value.id, call.func.attr) == ("yaml", "load"):
                loaders = {keyword.arg for keyword in call.keywords} | {len(call.args)}
                assert loaders & {"Loader", 2}, place
                continue
            assert (call.func.value.id, call.func.attr) not in FORBIDDEN_OF_MODULES, place
        for keyword in call.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            assert not (keyword.arg == "shell" and is_true), place


def test_a_document_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "alert.yaml"
    path.write_text("title: !!python/object/apply:os.system ['touch /tmp/x']\n")
    with pytest.raises(DocumentError):
        read_document(path, "alert")


@pytest.mark.parametrize("network", [False, True])
def test_a_facts_command_is_wrapped_and_an_actions_is_not(network: bool) -> None:
    sandbox = Sandbox("/usr/bin/bwrap", "/usr/bin/prlimit", "")
    line = sandbox.around(["ls", "; reboot"], network=network, seconds=5)
    assert line[:4] == ["/usr/bin/bwrap", "--ro-bind", "/", "/"]
    assert {"--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--cap-drop"} <= set(line)
    assert ("--unshare-net" in line) is not network
    assert line[-2:] == ["ls", "; reboot"]  # one argument, whatever stands in it
    host = LocalHost("here")
    assert isinstance(ConfinedHost.around(host, network=network), ConfinedHost)
    assert type(host) is LocalHost
    assert Registry().facts == ()
