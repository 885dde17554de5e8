"""Commands that change something ask who somebody is, and what they may do, where there are users."""

import getpass
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.clocks import START
from tests.lamp import Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper.cli import build_app
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.authority import REFUSED, authorize
from watchkeeper.runtime.errors import EscalationError, IdentityError
from watchkeeper.runtime.halt import Halts
from watchkeeper.runtime.people import People, Proof, current_person
from watchkeeper.runtime.roles import Permission, Role, roles_with
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.tokens import new_token
from watchkeeper.runtime.users import User, Users, change_users

RUNNER = CliRunner()

COMMANDS = {
    "serve --once": Permission.SERVE,
    "jobs work --once": Permission.SERVE,
    "breaker reset service.restart web": Permission.RESET_BREAKER,
    "stop --lift": Permission.LIFT,
    "backup {home}/../out.tar.gz": Permission.BACK_UP,
    "restore {home}/../out.tar.gz": Permission.BACK_UP,
    "decisions review INC-1-D1 --verdict right": Permission.REVIEW,
    "audit export {home}/../out.jsonl": Permission.EXPORT_AUDIT,
    "predictors promote busy 1": Permission.PROMOTE,
    "predictors rollback busy": Permission.PROMOTE,
    "predictors register busy {home}": Permission.RUN,
    "predictors label busy {home}/../labels.csv": Permission.RUN,
    "models adapters add site {home}": Permission.PROMOTE,
    "models adapters remove site": Permission.PROMOTE,
    "models tune": Permission.PROMOTE,
    "audit prune --before 1d --export {home}/../out.jsonl": Permission.PRUNE,
    "incidents prune --before 1d": Permission.PRUNE,
    "reclaimed release INC-1-S1": Permission.PRUNE,
    "escalations ack ESC-1": Permission.ACKNOWLEDGE,
    "escalations release ESC-1": Permission.RELEASE,
    "escalations delegate ESC-1 --to bob": Permission.ACKNOWLEDGE,
}


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        place = folder / "home"
        monkeypatch.setenv("WATCHKEEPER_HOME", str(place))
        monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
        Store(place / "watchkeeper.db").close()
        AuditLog(place).append("begun", {})
        yield place


@lru_cache(maxsize=1)
def of_each_role() -> tuple[Users, dict[str, str]]:
    """A user for each role, called like it, and their tokens; this process's account is the viewer's."""
    secrets: dict[str, str] = {}
    made: list[User] = []
    for role in Role:
        secrets[role.value], kept = new_token(START)
        accounts = (current_person(),) if role is Role.VIEWER else ()
        made.append(User(name=role.value, roles=(role,), accounts=accounts, tokens=(kept,)))
    return Users(users=tuple(made)), secrets


def users(home: Path) -> dict[str, str]:
    made, secrets = of_each_role()
    change_users(home, lambda _: made)
    return secrets


def invoke(home: Path, command: str) -> Result:
    return RUNNER.invoke(build_app(), command.format(home=home).split())


def told(home: Path, kind: str) -> list[dict[str, object]]:
    return [dict(entry.data) for entry in AuditLog(home).entries() if entry.kind == kind]  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_who_lacks_the_role_is_refused_and_that_is_kept(home: Path, command: str) -> None:
    permission = COMMANDS[command]
    users(home)
    result = invoke(home, command)
    assert result.exit_code == 2
    said = result.stderr.strip()
    assert said.startswith("error: 'viewer' (viewer) may not ")
    assert said.endswith(f": it takes the role {roles_with(permission)} (permission {permission.value!r})")
    (entry,) = told(home, REFUSED)
    assert (entry["by"], entry["permission"]) == ("viewer", permission.value)
    assert not list(home.parent.glob("out*"))


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "serve --once"])
def test_who_has_the_role_is_not_refused(home: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = roles_with(COMMANDS[command]).split()[0]
    monkeypatch.setenv("WATCHKEEPER_TOKEN", users(home)[holder])
    result = invoke(home, command)
    assert "may not" not in result.stderr
    assert not told(home, REFUSED)


def test_who_is_no_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users(home)
    monkeypatch.setenv("WATCHKEEPER_TOKEN", "wk_0_0")
    result = invoke(home, "stop --lift")
    assert result.exit_code == 2
    assert "this token is no user's" in result.stderr
    assert [entry["by"] for entry in told(home, REFUSED)] == [getpass.getuser()]


def test_programs_are_asked_for_the_same_roles(home: Path, tmp_path: Path) -> None:
    secrets = users(home)
    with orchestrator(home, Lamp.dark(tmp_path), prefers("bulb"), token=secrets["viewer"]) as o:
        with pytest.raises(IdentityError, match="may not acknowledge ESC-1"):
            o.acknowledge("ESC-1")
        with pytest.raises(EscalationError, match="ESC-1"):
            o.acknowledge("ESC-1", token=secrets["operator"])


def test_what_was_permitted_is_kept_under_the_users_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = users(home)
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secrets["admin"])
    for command in ("audit export {home}/../a.jsonl", "backup {home}/../b.tar.gz", "stop --lift"):
        assert invoke(home, command).exit_code == 0
    assert [entry["by"] for entry in told(home, "audit-exported")] == ["admin"]
    assert [(entry["by"], entry["known_by"]) for entry in told(home, "backed-up")] == [("admin", "token")]
    assert invoke(home, "audit verify").exit_code == 0


def test_everybody_may_stop_and_not_everybody_may_lift_that(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = users(home)
    monkeypatch.setenv("WATCHKEEPER_TOKEN", "wk_0_0")
    assert invoke(home, "stop --reason smoke").exit_code == 0
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secrets["operator"])
    assert "may not lift a stop: it takes the role approver or admin" in invoke(home, "stop --lift").stderr
    with Store(home / "watchkeeper.db") as store:
        assert Halts(store, AuditLog(home)).current() is not None
        monkeypatch.setenv("WATCHKEEPER_TOKEN", secrets["approver"])
        assert "work may go on" in invoke(home, "stop --lift").output
        assert Halts(store, AuditLog(home)).current() is None
    assert [(e["by"], e["stopped_by"]) for e in told(home, "halt-lifted")] == [
        ("approver", getpass.getuser())
    ]


def test_without_a_users_file_everybody_may(home: Path) -> None:
    for command in ("stop --lift", "breaker reset service.restart web", "audit export {home}/../out.jsonl"):
        assert "may not" not in invoke(home, command).stderr
    assert not told(home, REFUSED)


def test_a_refusal_stands_where_it_cannot_be_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users(home)
    log = AuditLog(home)
    log.path.write_text("not a log\n")
    with pytest.raises(IdentityError, match="may not prune"):
        authorize(People(home), log, Permission.PRUNE, "prune")


def test_who_may_is_returned_with_how_they_are_known(home: Path) -> None:
    token = users(home)["admin"]
    person = authorize(People(home), AuditLog(home), Permission.PRUNE, "prune", token=token)
    assert (person.name, person.proof) == ("admin", Proof.TOKEN)
