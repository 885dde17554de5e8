"""A level that names a role calls the users who have it; a role that nobody has is told beforehand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.calls import RULES, ask
from tests.clocks import START, FakeClock
from tests.lamp import folder_in_memory
from watchkeeper.cli import build_app
from watchkeeper.runtime.escalation_rules import EVERYONE, TERMINAL, EscalationRules
from watchkeeper.runtime.escalation_users import roles_of_nobody, with_users
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.oncall import people_of
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.users import FILE, User, Users, change_users

TEXT = """
version: 1
default: p
people: {Bob: {channels: [file]}}
roles: {operator: [Bob]}
policies:
  p:
    levels:
      - {who: {roles: [approver]}, wait: 5m}
      - {who: {roles: [operator]}, wait: 5m}
      - {who: {roles: [admin]}, wait: 5m}
"""
USERS = Users(
    users=(
        User(name="ann@site", roles=(Role.APPROVER, Role.OPERATOR)),
        User(name="bob", roles=(Role.APPROVER,)),
        User(name="eve", roles=(Role.VIEWER, Role.OPERATOR)),
    )
)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        (folder / "home").mkdir()
        (folder / "home" / "escalation.yaml").write_text(TEXT)
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "home"))
        yield folder / "home"


@pytest.fixture
def rules(home: Path) -> EscalationRules:
    return EscalationRules.load(home / "escalation.yaml")


def called(rules: EscalationRules) -> list[tuple[str, ...]]:
    return [people_of(rules, level, START) for level in rules.policy("p").levels]


def test_a_role_calls_its_users_and_a_group_of_the_rules_comes_first(rules: EscalationRules) -> None:
    bound = with_users(rules, USERS)
    assert called(bound) == [("ann@site", "Bob"), ("Bob",), (EVERYONE,)]
    assert (bound.channels_of("Bob"), bound.channels_of("ann@site")) == (("file",), (TERMINAL,))
    assert EscalationRules.model_validate_json(bound.model_dump_json()) == bound


def test_without_users_a_role_has_nobody_and_the_terminal_is_called(rules: EscalationRules) -> None:
    assert called(with_users(rules, None)) == [(EVERYONE,), ("Bob",), (EVERYONE,)]
    assert roles_of_nobody(rules, None) == (("p", 1, "approver"), ("p", 3, "admin"))
    assert roles_of_nobody(rules, USERS) == (("p", 3, "admin"),)


def test_an_escalation_calls_those_who_have_the_role_when_it_begins(
    home: Path, rules: EscalationRules
) -> None:
    change_users(home, lambda _: USERS)
    with Journal(home, now=FakeClock()) as journal:
        _, escalation = ask(journal, rules)
        assert escalation.called == ("ann@site", "Bob")
        told = journal.escalations.outbox.list(escalation.id)
        assert [(one.recipient, one.channel) for one in told] == [("ann@site", "terminal"), ("Bob", "file")]
        journal.escalations.delegate(escalation.id, by="Bob", to="ann@site")
        assert journal.escalations.get(escalation.id).called == ("ann@site",)


def test_a_users_file_that_is_broken_keeps_nobody_from_being_called(
    home: Path, rules: EscalationRules
) -> None:
    (home / FILE).write_text("users: nobody")
    with Journal(home, now=FakeClock()) as journal:
        assert ask(journal, rules)[1].called == (EVERYONE,)


def test_rules_without_roles_are_as_they_were() -> None:
    assert with_users(RULES, USERS) == RULES


def test_the_check_and_the_outlook_tell_of_roles(home: Path) -> None:
    app = build_app()
    said = CliRunner().invoke(app, ["escalations", "check"]).stdout
    assert "policy 'p' level 1: no user has the role 'approver' (there is no users file)" in said
    change_users(home, lambda _: USERS)
    said = CliRunner().invoke(app, ["escalations", "check"]).stdout
    assert "level 1" not in said
    assert "policy 'p' level 3: no user has the role 'admin': where" in said
    shown = json.loads(CliRunner().invoke(app, ["escalations", "check", "--json"]).stdout)
    assert shown["roles_of_nobody"] == [["p", 3, "admin"]]
    outlook = json.loads(CliRunner().invoke(app, ["escalations", "who", "--json"]).stdout)
    assert outlook["policies"]["p"]["levels"][0] == ["ann@site", "Bob"]


def test_a_policy_that_asks_for_people_who_are_not_there_is_told(home: Path) -> None:
    app = build_app()
    (home / "policy.yaml").write_text(
        "version: 1\n"
        "rules:\n"
        "  - {name: low, match: {tools: [service.restart]}, decision: ask, tier: 1}\n"
        "  - {name: high, match: {tools: [service.stop]}, decision: ask, tier: 2, quorum: 3}\n"
        "  - {name: never, match: {tools: [disk.*]}, decision: deny}\n"
    )
    assert "waits for" not in CliRunner().invoke(app, ["policy", "check"]).stdout
    change_users(home, lambda _: USERS)
    said = CliRunner().invoke(app, ["policy", "check"]).stdout
    assert "note: rule 'high' (tier 2) waits for 3 users who are approver, and 2 have it" in said
    assert "rule 'low'" not in said
    change_users(home, lambda _: Users(users=(User(name="eve", roles=(Role.VIEWER,)),)))
    shown = json.loads(CliRunner().invoke(app, ["policy", "check", "--json"]).stdout)
    assert [(one["rule"], one["there"]) for one in shown["too_few_people"]] == [("low", 0), ("high", 0)]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("match: {tools: [process.end]}, decision: allow", [("r", 2)]),  # it is irreversible
        ("match: {tools: [process.*]}, decision: ask, tier: 1", [("r", 2)]),
        ("match: {tools: [service.*]}, decision: allow", []),
        ("match: {tools: [process.end]}, when: 'host.labels.role == \"db\"', decision: allow", []),
        (
            "match: {tools: [service.*]}, decision: allow, tier: 2, limit: {hosts: 1, per: 1h, beyond: ask}",
            [("r", 2)],
        ),
        ("match: {tools: [service.stop]}, decision: allow, tier: 2, limit: {actions: 1, per: 1h}", []),
    ],
)
def test_a_rule_that_comes_to_ask_needs_people_too(
    home: Path, rule: str, told: list[tuple[str, int]]
) -> None:
    (home / "policy.yaml").write_text(f"version: 1\nrules:\n  - {{name: r, {rule}}}\n")
    (home / "inventory.yaml").write_text("hosts: [{name: here, labels: {role: web}}]")
    change_users(home, lambda _: Users(users=(User(name="op", roles=(Role.OPERATOR,)),)))
    result = CliRunner().invoke(build_app(), ["policy", "check", "--json"])
    shown = json.loads(result.stdout)
    assert [(one["rule"], one["tier"]) for one in shown["too_few_people"]] == told
