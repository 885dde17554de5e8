"""Escalation rules say who is called, or where and why they do not."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from watchkeeper.cli import escalations
from watchkeeper.cli.init import starter
from watchkeeper.runtime.errors import ConfigurationError
from watchkeeper.runtime.escalation_rules import EVERYONE, TERMINAL, EscalationRules
from watchkeeper.runtime.oncall import people_of
from watchkeeper.tools.findings import Severity

GOOD = """
version: 1
default: calm
people:
  alice: {channels: [mail, terminal]}
  bob: {}
roles:
  database: [alice, bob]
channels:
  mail: {kind: apprise, secret: ALICE_MAIL}
rotations:
  primary:
    zone: Europe/Berlin
    every: week
    at: "09:00"
    start: 2026-01-05
    members: [alice, bob]
    overrides:
      - {who: bob, from: "2026-01-06 08:00", until: 2026-01-07 20:00:00}
policies:
  calm:
    levels:
      - {who: {everyone: true}}
  urgent:
    hours: {zone: Europe/Berlin, from: "08:00", until: "18:00", outside: 2}
    levels:
      - {who: {roles: [database], users: [bob]}, wait: 90s, repeat: 2}
      - {who: {rotations: [primary]}, wait: 1h}
apply:
  - {policy: urgent, severities: [critical], hosts: {environment: prod*}}
"""


def rules_of(folder: Path, text: str) -> EscalationRules:
    path = folder / "escalation.yaml"
    path.write_text(text, encoding="utf-8")
    return EscalationRules.load(path)


def test_rules_say_who_is_called_for_what(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, GOOD)
    assert rules.choose(Severity.CRITICAL, {"environment": "production"}) == "urgent"
    assert rules.choose(Severity.WARNING, {"environment": "production"}) == "calm"
    assert rules.choose(Severity.CRITICAL, {}) == "calm"
    first, second = rules.policy("urgent").levels
    at = datetime(2026, 1, 6, 12, tzinfo=UTC)
    assert people_of(rules, first, at) == ("bob", "alice")
    assert people_of(rules, second, at) == ("bob",)
    assert people_of(rules, second, at + timedelta(days=2)) == ("alice",)
    assert (first.wait, first.repeat, second.wait) == (timedelta(seconds=90), 2, timedelta(hours=1))
    assert rules.policy("urgent").length == timedelta(minutes=4, seconds=30, hours=1)
    assert rules.channels_of("alice") == ("mail", "terminal")
    assert rules.channels_of("carol") == (TERMINAL,)


def test_without_rules_everyone_at_the_terminal_is_called_without_an_end() -> None:
    rules = EscalationRules()
    (level,) = rules.policy(rules.choose(Severity.CRITICAL, {})).levels
    assert people_of(rules, level, datetime.now(UTC)) == (EVERYONE,)
    assert level.wait is None


def test_rules_are_the_same_after_they_were_kept(tmp_path: Path) -> None:
    rules = rules_of(tmp_path, GOOD)
    assert EscalationRules.model_validate_json(rules.model_dump_json()) == rules


def test_the_starter_is_usable_with_and_without_its_comments(tmp_path: Path) -> None:
    text = starter("escalation.yaml")
    assert rules_of(tmp_path, text) == EscalationRules()
    head, _, example = text.partition("Take this out")
    example = re.sub(r"^# ?", "", example.partition("#\n")[2], flags=re.MULTILINE)
    rules = rules_of(tmp_path, head.replace("default: terminal", "default: urgent") + "\n" + example)
    assert len(rules.policy("urgent").levels) == 3
    assert rules.default == "urgent"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("default: calm", "default: clam", 3, "unknown policy 'clam' (there are: calm, terminal, urgent)"),
        ("alice: {channels: [mail", "alice: {channels: [male", 5, "unknown channel 'male'"),
        ("database: [alice, bob]", "database: [alice, bib]", 8, "unknown person 'bib'"),
        ("database: [alice, bob]", "database: []", 8, "at least 1"),
        ("secret: ALICE_MAIL", "secret: 'mailto://u:p@h'", 10, "pattern"),
        ("mail: {kind", "terminal: {kind", 10, "built in"),
        ("Europe/Berlin\n    every", "Europe/Berlon\n    every", 13, "no such time zone"),
        ('at: "09:00"', "at: 18:00", 15, "in quotes"),
        ("members: [alice, bob]", "members: []", 17, "at least 1"),
        ("members: [alice, bob]", "members: [eve]", 17, "unknown person 'eve'"),
        ("{who: bob, from", "{who: eve, from", 19, "unknown person 'eve'"),
        ("calm:\n", "terminal:\n", 21, "built in"),
        ("outside: 2", "outside: 3", 24, "hours.outside is 3, of 2 levels"),
        ("roles: [database]", "roles: [databse]", 27, "unknown role 'databse' (there are: admin, "),
        ("users: [bob]", "users: [rob]", 27, "unknown person 'rob'"),
        ("wait: 90s", "wait: 90", 27, "a number and a unit"),
        ("wait: 90s", "wait: 1.5h", 27, "a number and a unit"),
        ("wait: 90s", "wait: 31d", 27, "at most 30 days"),
        (", wait: 90s", "", 24, "level 1 says no wait"),
        ("repeat: 2", "repeat: -1", 27, "greater than or equal to 0"),
        ("rotations: [primary]", "rotations: [secondary]", 28, "unknown rotation 'secondary'"),
        ("rotations: [primary]", "rotations: []", 28, "nobody is named"),
        ("policy: urgent", "policy: urgnt", 30, "unknown policy 'urgnt'"),
        ("severities: [critical]", "severities: [grave]", 30, "'normal', 'warning' or 'critical'"),
        ("severities:", "severity:", 30, "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_value(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as error:
        rules_of(tmp_path, GOOD.replace(old, new))
    message = str(error.value)
    assert said in message
    assert f"{str(tmp_path / 'escalation.yaml')!r} line {line}:" in message
    assert "\n" not in message


def test_rules_are_checked_and_told_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    run = CliRunner()
    assert "0 policies" in run.invoke(escalations.app, ["check"]).stdout
    assert EVERYONE in run.invoke(escalations.app, ["who"]).stdout
    (tmp_path / "escalation.yaml").write_text(GOOD)
    monkeypatch.setenv("WATCHKEEPER_APPROVAL_TTL_SECONDS", "600")
    checked = run.invoke(escalations.app, ["check"])
    assert "2 policies, 1 rotation, 2 people: all is well" in checked.stdout
    assert "policy 'urgent' takes 3870 s to its end, but questions expire after 600 s" in checked.stdout
    shown = run.invoke(escalations.app, ["who", "urgent", "--at", "2026-01-06T20:00+01:00"]).stdout
    levels = [line.split() for line in shown.splitlines()]
    assert levels[1] == ["urgent", "1", "90s", "x3", "bob,", "alice"]
    assert levels[2] == ["urgent", "2", "yes", "1h", "bob"]
    assert levels[5] == ["primary", "bob", "2026-01-06", "07:00:00", "2026-01-07", "19:00:00", "override"]
    data = json.loads(run.invoke(escalations.app, ["who", "--at", "2026-01-08T20:00Z", "--json"]).stdout)
    assert data["policies"]["urgent"]["levels"] == [["bob", "alice"], ["alice"]]
    assert data["rotations"]["primary"]["override"] is False


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("who", "nobody"), "escalation policy 'nobody' is unknown"),
        (("who", "--at", "noon"), "--at 'noon': a moment is a date"),
        (("who", "--at", "2026-01-06 12:00"), "needs an offset"),
        (("check", "/nowhere/escalation.yaml"), "'/nowhere/escalation.yaml' cannot be read"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    ended = CliRunner().invoke(escalations.app, arguments)
    assert ended.exit_code == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
