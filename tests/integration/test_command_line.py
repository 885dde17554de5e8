"""The command line as a whole: help at once, one line for a wrong call, files to begin with, tools shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from watchkeeper import __version__
from watchkeeper.cli.init import FILES, starter
from watchkeeper.runtime.settings import Settings, load_settings
from watchkeeper.tools.inventory import Inventory

HEAVY = ("torch", "transformers", "langgraph", "langchain_core", "sqlalchemy", "watchkeeper.runtime")


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "watchkeeper.cli", *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["tools", "--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from watchkeeper.cli import main\n"
        f"sys.argv = ['watchkeeper', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    assert done.stdout


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"watchkeeper {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'; see 'watchkeeper --help'"),
        (["run", "--quux"], "No such option: --quux; see 'watchkeeper run --help'"),
        (["approvals", "show"], "Missing argument 'APPROVAL'; see 'watchkeeper approvals show --help'"),
        (
            ["run"],
            "Invalid value: name either an alert file or --resume INCIDENT; see 'watchkeeper run --help'",
        ),
    ],
)
def test_a_wrong_call_is_one_line_that_says_where_to_look(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {said}\n")


def test_a_group_without_its_command_shows_its_help(tmp_path: Path) -> None:
    done = run(tmp_path, "approvals")
    assert done.returncode == 2
    assert "not-done" in done.stdout
    assert done.stderr == ""


def test_init_writes_files_that_are_accepted(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    done = json.loads(run(home, "init", "--json").stdout)
    assert done == {
        "home": str(home),
        "written": [str(home / name) for name in FILES],
        "kept": [],
        "closed": False,
    }
    assert {path.name for path in home.iterdir()} == set(FILES)
    assert home.stat().st_mode & 0o077 == 0
    checked = run(home, "policy", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    (host,) = Inventory.load(home / "inventory.yaml").hosts
    explained = run(
        home,
        "policy",
        "explain",
        "process.end",
        host.name,
        "--arguments",
        '{"process": "1@1764000000.25"}',
        "--json",
    )
    decided = json.loads(explained.stdout)
    assert (decided["decision"], decided["tier"]) == ("ask", 2)


def test_init_keeps_what_is_there_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("mine")
    done = json.loads(run(tmp_path, "init", "--json").stdout)
    assert done["kept"] == [str(tmp_path / "policy.yaml")]
    assert (tmp_path / "policy.yaml").read_text() == "mine"
    forced = json.loads(run(tmp_path, "init", "--force", "--json").stdout)
    assert len(forced["written"]) == len(FILES)
    assert (tmp_path / "policy.yaml").read_text() == starter("policy.yaml")
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_the_defaults_in_the_starter_configuration_are_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WATCHKEEPER_{name.upper()}", raising=False)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    text = re.sub(r"^# ( *[a-z_]+:( |$))", r"\1", starter("config.yaml"), flags=re.MULTILINE)
    file = tmp_path / "all.yaml"
    file.write_text(text)
    told = set(yaml.safe_load(text))
    assert told == set(Settings.model_fields) - {"home"}
    paths = {name: tmp_path / f"{name}.yaml" for name in ("inventory", "policy", "escalation")}
    # The adapter by default is the one that comes with the model, and the file names it.
    (adapter,) = Settings().adapters
    assert load_settings(file) == Settings(**paths, store=str(tmp_path / "watchkeeper.db"), adapter=adapter)


def test_the_example_in_the_starter_inventory_holds_once_taken_out_of_its_comment(tmp_path: Path) -> None:
    text = starter("inventory.yaml").replace("    services: []\n", "")
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(re.sub(r"^    # (services:|  )", r"    \1", text, flags=re.MULTILINE))
    (host,) = Inventory.load(inventory).hosts
    assert [len(service.checks) for service in host.services] == [2]


def test_tools_are_listed_with_what_can_be_taken_back(tmp_path: Path) -> None:
    listed = json.loads(run(tmp_path, "tools", "list", "--json").stdout)
    ways = {action["name"]: action["reversibility"] for action in listed["actions"]}
    assert (ways["disk.reclaim"], ways["process.end"]) == ("reversible", "irreversible")
    assert "log.search" in {fact["name"] for fact in listed["facts"]}
    table = run(tmp_path, "tools", "list").stdout
    assert all(tool["name"] in table for kind in ("facts", "actions") for tool in listed[kind])


def test_a_tool_is_shown_with_the_schema_of_its_arguments(tmp_path: Path) -> None:
    shown = json.loads(run(tmp_path, "tools", "show", "service.restart", "--json").stdout)
    assert shown["arguments"]["required"] == ["service"]
    assert not shown["arguments"]["additionalProperties"]
    text = run(tmp_path, "tools", "show", "log.search").stdout
    assert "severity: debug | info | warning | error | critical (default 'warning')" in text
    unknown = run(tmp_path, "tools", "show", "service.explode")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: no tool is named 'service.explode'")
