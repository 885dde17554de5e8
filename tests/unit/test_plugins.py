"""Tools and agents of a site are known to every command: named in the configuration, or installed."""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.lamp import AGENTS, ALERT, ALLOW, INVENTORY, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Agent, Orchestrator, Settings
from watchkeeper.cli import build_app
from watchkeeper.runtime.approvals import Answer, Approvals, ApprovalStatus
from watchkeeper.runtime.doctor import Gravity, examine
from watchkeeper.runtime.runs import RunFile
from watchkeeper.runtime.settings import load_settings
from watchkeeper.runtime.store import Store
from watchkeeper.tools import plugins
from watchkeeper.tools.errors import PluginError
from watchkeeper.tools.plugins import load_plugins, load_registry, load_tools

MODULE = """
from pathlib import Path
from tests.lamp import AGENTS, Lamp

LAMP = Lamp(Path({root!r}))
LIGHT = LAMP.tools()[0]
ALL = LAMP.tools()
TWICE = (LIGHT, LIGHT)

def tools():
    return ALL

def one():
    return LIGHT

def agents():
    return AGENTS

def mixed():
    return [LIGHT, "switch"]

def broken():
    raise RuntimeError("no lamp here")
"""
NAME = "lamp_plugin_for_tests"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        (folder / f"{NAME}.py").write_text(MODULE.format(root=str(folder)))
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "home"))
        (folder / "home").mkdir()
        RunFile.write_inventory(folder / "home" / "inventory.yaml", INVENTORY)
        (folder / "home" / "config.yaml").write_text(f"tools: [{NAME}:tools]\n")
        yield folder / "home"
        sys.modules.pop(NAME, None)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), arguments)


def installed(monkeypatch: pytest.MonkeyPatch, *references: str) -> None:
    points = tuple(EntryPoint(f"p{n}", r, plugins.TOOLS) for n, r in enumerate(references))

    def found(group: str) -> tuple[EntryPoint, ...]:
        return points if group == plugins.TOOLS else ()

    monkeypatch.setattr(plugins, "_installed", found)


@pytest.mark.parametrize("attribute", ["tools", "ALL", "LIGHT", "one", "LAMP.tools"])
def test_a_plugin_is_a_function_a_list_or_a_single_tool(home: Path, attribute: str) -> None:
    registry = load_registry([f"{NAME}:{attribute}"])
    assert registry.fact("lamp.light").summary == "whether the lamp shines"
    assert registry.fact("service.status") is not None


def test_installed_packages_bring_tools_along_and_none_comes_twice(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, f"{NAME}:tools")
    assert load_registry().action("switch.set").name == "switch.set"
    (plugin,) = load_tools([f"{NAME}:tools"])
    assert len(plugin.things) == 9


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("tools", "plugin 'tools' is not module:function"),
        ("no_such_module_anywhere:tools", "install its package for"),
        (f"{NAME}:nothing", "has no 'nothing'"),
        (f"{NAME}:mixed", "brings 'switch', which is no Fact or Action"),
        (f"{NAME}:broken", "failed (RuntimeError: no lamp here)"),
        (f"{NAME}:TWICE", "a tool named 'lamp.light' is registered already"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named_by_every_command(
    home: Path, reference: str, said: str
) -> None:
    with pytest.raises(PluginError) as caught:
        load_registry([reference])
    assert said in str(caught.value)
    (home / "config.yaml").write_text(f"tools: ['{reference}']\n")
    (home / "alert.yaml").write_text(yaml.safe_dump(ALERT.model_dump(mode="json", exclude_defaults=True)))
    result = invoke("policy", "check")
    assert result.exit_code == 2
    assert said in result.stderr
    assert f"plugin {reference!r}" in result.stderr
    assert "\n" not in result.stderr.strip()


def test_every_command_knows_the_same_tools(home: Path) -> None:
    (home / "policy.yaml").write_text(
        'version: 1\nrules:\n  - {name: a, match: {tools: ["switch.*"]}, decision: allow, reason: a toy}\n'
    )
    (home / "alert.yaml").write_text(yaml.safe_dump(ALERT.model_dump(mode="json", exclude_defaults=True)))
    listed = json.loads(invoke("tools", "list", "--json").stdout)
    assert listed["plugins"]["switch.set"] == repr(f"{NAME}:tools")
    assert "set the switch" in invoke("tools", "show", "switch.set").stdout
    checked = json.loads(invoke("policy", "check", "--json").stdout)
    assert {"fuse.bridge", "bulb.replace"} <= {gap["action"] for gap in checked["denied_by_default"]}
    explained = invoke("policy", "explain", "switch.set", "house", "--arguments", '{"position": "on"}')
    assert "allow" in explained.stdout
    (home / "cases.yaml").write_text(
        "cases:\n  - {name: lamps, action: switch.set, host: house, arguments: {position: 'on'},"
        " expect: {decision: allow}}\n"
    )
    tried = invoke("policy", "test", str(home / "cases.yaml"))
    assert (tried.exit_code, "1 cases, 0 failed" in tried.stdout) == (0, True), tried.output + tried.stderr
    submitted = invoke("submit", str(home / "alert.yaml"))
    assert submitted.stdout.startswith("INC-"), submitted.stderr
    assert not [found for found in examine(home) if found.gravity is Gravity.ERROR]


def test_the_doctor_names_a_plugin_that_is_broken(home: Path) -> None:
    (home / "config.yaml").write_text(f"tools: ['{NAME}:broken']\n")
    (found,) = [one for one in examine(home) if one.area == "plugins"]
    assert (found.gravity, f"{NAME}:broken" in found.what) == (Gravity.ERROR, True)


def test_a_run_uses_the_tools_and_agents_of_plugins(home: Path) -> None:
    lamp = Lamp.dark(home.parent, switch="off")
    (home / "rules.yaml").write_text(ALLOW)
    settings = Settings(
        home=home,
        tools=(f"{NAME}:tools",),
        agents=(f"{NAME}:agents",),
        settle_seconds=0,
        reading_pause_seconds=0,
    )
    with Orchestrator(
        inventory=INVENTORY, engine=prefers("switch"), policy=home / "rules.yaml", settings=settings
    ) as o:
        events = list(o.run(ALERT))
        assert o.report(events[0].incident_id).outcome == "resolved"
    assert lamp.shines()


def test_agents_given_to_a_run_take_the_place_of_those_of_plugins(home: Path) -> None:
    mine = Agent(role=AGENTS[0].role, instructions="mine")
    settings = Settings(home=home, tools=(), agents=(f"{NAME}:agents",))
    with Orchestrator(inventory=INVENTORY, engine=prefers(), agents=(mine,), settings=settings) as o:
        assert o._team.agents[mine.role].instructions == "mine"
        assert o._team.agents[AGENTS[1].role] == AGENTS[1]


def test_two_plugins_do_not_share_a_role(home: Path) -> None:
    (home.parent / "other_plugin_for_tests.py").write_text("from tests.lamp import AGENTS\n")
    settings = Settings(home=home, agents=(f"{NAME}:agents", "other_plugin_for_tests:AGENTS"))
    with pytest.raises(PluginError, match=f"'{NAME}:agents' and 'other_plugin_for_tests:AGENTS' both bring"):
        Orchestrator(inventory=INVENTORY, engine=prefers(), settings=settings)
    assert load_plugins(plugins.AGENTS, settings.agents[:1], (Agent,))[0].things == AGENTS


def asked(home: Path) -> str:
    lamp = Lamp.dark(home.parent, switch="odd")
    with orchestrator(home, lamp, prefers("switch"), requester="ann") as o:
        incident = o.open(ALERT).id
        step = o.changes.propose(
            incident, host="house", action="switch.set", arguments={"position": "on"}, key="it"
        )
        o.changes.decide(step.id)
        return o.changes.ask(step.id).id


def test_an_edit_at_the_terminal_changes_the_arguments_of_a_tool_of_ones_own(home: Path) -> None:
    approval_id = asked(home)
    done = invoke("approvals", "edit", approval_id.lower(), "position=off", "--reason", "the other way")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{approval_id}: edit, by ")
    with Store(load_settings().store_place) as store:
        approval = Approvals(store).get(approval_id)
    assert (approval.answer, approval.edited) == (Answer.EDIT, {"position": "off"})


def test_an_edit_that_makes_no_sense_is_told_and_the_question_stays(home: Path) -> None:
    approval_id = asked(home)
    for given, said in (
        ("position=up", "switch.set: position: Input should be 'on' or 'off' (got 'up')"),
        ("position=on", "has these arguments already"),
        ("position", "'position' is not NAME=VALUE"),
        ("position=[", "its value is not YAML"),
        ("lamp=on", "switch.set: lamp: there is no such argument; it takes"),
    ):
        done = invoke("approvals", "edit", approval_id, given)
        assert (done.exit_code, said in done.stderr) == (2, True), done.stderr
    with Store(load_settings().store_place) as store:
        assert Approvals(store).get(approval_id).status is ApprovalStatus.PENDING


def test_an_edit_of_a_tool_that_nobody_registered_says_so(home: Path) -> None:
    approval_id = asked(home)
    (home / "config.yaml").write_text("tools: []\n")
    done = invoke("approvals", "edit", approval_id, "position=off")
    assert (done.exit_code, "action 'switch.set' is not registered" in done.stderr) == (2, True)
