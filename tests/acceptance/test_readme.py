"""What the README and its pages say is so: commands are there, links lead somewhere, and code runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from watchkeeper.cli import build_app
from watchkeeper.models.home import models_folder
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.settings import Settings
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.inventory import Inventory

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
CODE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
FILES = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = list(dict.fromkeys(re.findall(r"^\$ (.+?)(?: +#.*)?$", README, flags=re.MULTILINE)))


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "WATCHKEEPER_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        cwd=home,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=280,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own with the models of this machine."""
    (tmp_path / "models").symlink_to(models_folder())
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[0] == "export":
        name, _, value = words[1].partition("=")
        assert name.removeprefix("WATCHKEEPER_").lower() in Settings.model_fields
        assert value
    elif words[0] == "curl":
        assert words[2].startswith("localhost:")
    elif words[0].endswith("python"):
        assert (ROOT / words[1]).is_file()
    else:
        assert words[0] == "watchkeeper"
        options = [word for word in words if word.startswith("--")]
        groups = {
            "users",
            "approvals",
            "breaker",
            "escalations",
            "incidents",
            "jobs",
            "decisions",
            "audit",
            "policy",
            "tools",
            "models",
            "predictors",
            "configs",
            "reclaimed",
        }
        name = words[1:3] if words[1] in groups else words[1:2]
        helped = CliRunner().invoke(build_app(), [*name, "--help"])
        assert helped.exit_code == 0, helped.output
        assert all(option in helped.output for option in options)


def test_there_are_commands_to_check() -> None:
    assert {"make demo", "make test", "watchkeeper run alert.yaml", "watchkeeper audit verify"} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    links = [link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]
    assert [to for to, _, _ in links if not (page.parent / to).exists()] == []
    places = [(page.parent / to if to else page, place) for to, _, place in links if place]
    assert [place for to, place in places if place not in _headings(to)] == []


def _headings(page: Path) -> set[str]:
    """Return how a page's headings are linked to: in small letters, with hyphens and no other signs."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_every_page_can_be_reached_from_the_readme() -> None:
    front = PAGES[0].read_text(encoding="utf-8")
    assert [page.name for page in PAGES[1:] if f"](docs/{page.name})" not in front] == []


def test_its_files_are_accepted(tmp_path: Path) -> None:
    inventory = next(text for text in FILES if text.startswith("hosts:"))
    alert = next(text for text in FILES if text.startswith("title:"))
    (tmp_path / "inventory.yaml").write_text(inventory)
    (tmp_path / "alert.yaml").write_text(alert)
    hosts = Inventory.load(tmp_path / "inventory.yaml")
    Alert.load(tmp_path / "alert.yaml").check(hosts, builtin_registry())
    assert set(yaml.safe_load(inventory)) == {"hosts"}


def test_its_policy_answers_its_cases_as_it_says(tmp_path: Path) -> None:
    for name, first in (("inventory", "hosts:"), ("policy", "version: 1"), ("cases", "cases:")):
        text = next(text for text in FILES if text.startswith(first))
        (tmp_path / f"{name}.yaml").write_text(text)
    done = python(tmp_path, "-m", "watchkeeper.cli", "policy", "test", str(tmp_path / "cases.yaml"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "7 cases, 0 failed"), done.stdout


@pytest.mark.model
def test_its_first_program_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing is wrong but that nobody listens: a few facts are enough to show that the program runs.
    monkeypatch.setenv("WATCHKEEPER_MAX_FACTS", "6")
    done = python(home, "-c", CODE[0])
    assert done.returncode == 0, done.stderr
    *events, outcome = done.stdout.split()
    assert events[0] == "incident-opened"
    assert events[-1] == "incident-closed"
    assert outcome in {"escalated", "resolved", "closed"}


@pytest.mark.model
def test_its_tool_mends_what_it_is_about(home: Path) -> None:
    done = python(home, "-c", CODE[1])
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert any(line.endswith("end the maintenance") for line in told), done.stdout
    assert told[-1] == "resolved", done.stdout
    assert not (home / "maintenance.flag").exists()
    assert (home / "shop-home" / "reports").is_dir()


def test_every_program_of_the_readme_is_run() -> None:
    assert len(CODE) == 2
