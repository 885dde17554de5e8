"""Every example runs as its own text says, with a script in the model's place or with a real model."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crashes import sensible
from watchkeeper import Alert, Orchestrator, Settings
from watchkeeper.models.home import models_folder
from watchkeeper.runtime.policy import Policy
from watchkeeper.tools.builtin import builtin_registry

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMANDS = re.findall(r"^\$ (.+)$", (EXAMPLES / "yaml" / "README.md").read_text(), flags=re.MULTILINE)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own with the models of this machine."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(models_folder())
    return tmp_path / "home"


def run(home: Path, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        cwd=cwd or home,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_an_incident_is_handled_through_the_python_api(home: Path) -> None:
    done = run(home, EXAMPLES / "python_api.py", "--yes", "--scripted")  # a model has the README's program
    assert done.returncode == 0, done.stdout + done.stderr
    assert "policy: ask (rule ask-before-every-change, tier 1)" in done.stdout
    assert "resolved: " in done.stdout
    assert "the service answers again" in done.stdout


def test_tools_of_ones_own_mend_what_is_ones_own(home: Path) -> None:
    done = run(home, EXAMPLES / "own_tools.py", "--scripted")  # a model has the tool of docs/tools.md
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resolved; jobs that wait: 0; lock there: False" in done.stdout
    assert "queue.unlock: verified" in done.stdout
    assert "queue.resume: rolled-back" in done.stdout


def test_the_gate_stands_in_a_graph_of_ones_own(home: Path) -> None:
    allowed = run(home, EXAMPLES / "own_graph.py", "--yes")
    assert allowed.returncode == 0, allowed.stderr
    assert re.search(r"permitted: True \(approve by .*\noutcome: .*worker.lock is put aside", allowed.stdout)
    refused = run(home, EXAMPLES / "own_graph.py")
    assert refused.returncode == 0, refused.stderr
    assert re.search(r"permitted: False \(reject by .*\noutcome: nothing was done", refused.stdout)
    assert "effect-intended" not in refused.stdout


# -- the site in YAML -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A copy of the example with places of its own, started and broken as its text says."""
    short = Path(tempfile.mkdtemp(prefix="wk-"))  # the path of a UNIX socket must be short
    port, base = str(free_port()), short / "shop"
    folder = tmp_path / "repository"
    shutil.copytree(EXAMPLES / "yaml", folder / "examples" / "yaml")
    for file in (folder / "examples" / "yaml").iterdir():
        text = file.read_text().replace("/tmp/watchkeeper-shop", str(base)).replace("18080", port)
        file.write_text(text.replace("command = python3", f"command = {sys.executable}"))
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    *start, kill = [command.replace("/tmp/watchkeeper-shop", str(base)) for command in COMMANDS[:3]]
    try:
        for command in start:
            subprocess.run(shlex.split(command), check=True, cwd=folder)
        deadline = time.monotonic() + 20
        while not answers(int(port)):
            assert time.monotonic() < deadline, (base / "shop.log").read_text()
            time.sleep(0.1)
        subprocess.run(shlex.split(kill), check=True, cwd=folder, capture_output=True)
        while answers(int(port)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield folder
    finally:
        subprocess.run(shlex.split(COMMANDS[-2]), check=True, cwd=folder, capture_output=True)
        shutil.rmtree(short, ignore_errors=True)  # it may still write while it ends


def test_the_commands_of_the_yaml_example_are_the_ones_that_are_tested() -> None:
    assert [shlex.split(command)[0].rpartition("/")[2] for command in COMMANDS] == [
        *("mkdir", "supervisord", "supervisorctl"),
        *["watchkeeper"] * 4,
        *("supervisorctl", "rm"),
    ]


def test_its_policy_holds_to_its_own_examples() -> None:
    policy = Policy.load(EXAMPLES / "yaml" / "policy.yaml", builtin_registry())
    assert [rule.name for rule in policy.rules] == [
        "start-what-stopped",
        "ask-before-the-rest",
        "not-again-and-again",
    ]


def test_a_site_in_yaml_is_mended_as_its_policy_allows(site: Path, home: Path) -> None:
    folder = site / "examples" / "yaml"
    with Orchestrator(
        inventory=folder / "inventory.yaml",
        policy=folder / "policy.yaml",
        engine=sensible(),
        settings=Settings(home=home),
    ) as orchestrator:
        events = list(orchestrator.run(Alert.load(folder / "alert.yaml")))
        report = orchestrator.report(events[0].incident_id)
    assert (report.outcome, report.approvals) == ("resolved", ())
    assert [(step.action, step.status.value) for step in report.steps] == [("service.start", "verified")]


@pytest.mark.model
@pytest.mark.timeout(900)
def test_the_commands_of_the_yaml_example_do_what_it_says(site: Path, home: Path) -> None:
    for command in COMMANDS[3:7]:
        program, *arguments = shlex.split(command)
        assert program == ".venv/bin/watchkeeper"
        done = run(home, "-m", "watchkeeper.cli", *arguments, cwd=site)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        if "incidents list" in command:
            assert "resolved" in done.stdout


def test_the_queue_of_the_examples_is_not_made_where_a_link_leads_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    temporary.mkdir()
    elsewhere.mkdir()
    (temporary / f"watchkeeper-example-queue-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = run(home, EXAMPLES / "own_graph.py", "--yes")
    assert "is not a folder of this user's own" in done.stderr
    assert list(elsewhere.iterdir()) == []
