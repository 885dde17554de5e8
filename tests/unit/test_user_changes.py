"""Who the users are says an admin, one of whom can always sign in; each change and refusal is audited."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.lamp import folder_in_memory
from watchkeeper.cli import users as commands
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.doctor import Gravity, examine
from watchkeeper.runtime.errors import AuditError
from watchkeeper.runtime.people import People, current_person
from watchkeeper.runtime.roles import Role
from watchkeeper.runtime.tokens import new_token
from watchkeeper.runtime.users import FILE, User, Users, change_users, load_users

ME = current_person()
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOBODYS = "no-such-account-here"
TYPE = "watchkeeper users add NAME --role admin --account ACCOUNT"


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        (folder / "home").mkdir(mode=0o700)
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "home"))
        monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
        yield folder / "home"


def run(command: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(commands.app, command.split(), catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def refused(command: str) -> str:
    code, said, why = run(command)
    assert (code, said) == (2, "")
    return why


def names(home: Path) -> list[str]:
    users = load_users(home)
    return [] if users is None else [user.name for user in users.users]


def told(home: Path, kind: str) -> list[Any]:
    return [entry.data for entry in AuditLog(home).entries() if entry.kind == kind]


def earlier(home: Path, *users: User) -> None:
    """Write users as a release did that did not ask for an admin."""
    change_users(home, lambda _: Users(users=users))


# -- the first user ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (f"add mallory --role approver --account {ME}", "the first user must be an admin"),
        ("add fay --role admin", "'fay' would have neither a token nor an account of this machine"),
        (f"add fay --role admin --account {NOBODYS}", f"'{NOBODYS}' is none"),
    ],
)
def test_the_first_user_is_an_admin_who_can_sign_in(home: Path, command: str, why: str) -> None:
    said = refused(command)
    assert why in said
    assert TYPE in said
    assert names(home) == []
    assert not (home / FILE).exists()
    assert told(home, "users-changed") == []
    assert [(one["by"], one["permission"]) for one in told(home, "refused")] == [(ME, "manage")]
    assert "[redacted]" not in told(home, "refused")[0]["reason"]


def test_the_first_admin_signs_in_by_account_or_by_a_token_made_in_the_same_step(home: Path) -> None:
    code, secret, said = run("add fay --role admin --with-token")
    assert code == 0
    assert "fay: admin" in said
    assert People(home).at_terminal(token=secret.strip()).name == "fay"
    (home / FILE).unlink()
    assert run(f"add fay --role admin --account {ME}")[0] == 0
    assert People(home).at_terminal().name == "fay"


def test_a_role_is_asked_for(home: Path) -> None:
    run(f"add fay --role admin --account {ME}")
    assert "'bob' is: there are viewer, operator, approver, admin" in refused("add bob")
    assert "there are viewer" in refused("roles fay")


# -- users of an earlier release, without an admin --------------------------------------------------------


def test_without_an_admin_the_owner_of_the_home_adds_one_and_nothing_else(home: Path) -> None:
    earlier(home, User(name="ann", roles=(Role.OPERATOR,), accounts=(ME,)))
    for command in ("add mallory --role approver", "token ann", "roles ann operator approver", "remove ann"):
        assert TYPE in refused(command)
    assert [one["by"] for one in told(home, "refused")] == ["ann"] * 4
    (found,) = [one for one in examine(home) if one.area == "users"]
    assert (found.gravity, TYPE in found.advice) == (Gravity.WARNING, True)
    assert f"owner ({ME})" in found.advice
    assert run("add fay --role admin --with-token")[0] == 0
    assert names(home) == ["ann", "fay"]
    assert [one["by"] for one in told(home, "users-changed")] == ["ann"]
    assert [one for one in examine(home) if one.area == "users"] == []


def test_without_an_admin_nobody_else_adds_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, kept = new_token(NOON)
    earlier(home, User(name="bob", roles=(Role.APPROVER,), tokens=(kept,)))
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secret)
    assert "'bob' may not add 'eve': no admin can sign in" in refused("add eve --role admin --with-token")
    assert [(one["by"], one["known_by"]) for one in told(home, "refused")] == [("bob", "token")]
    monkeypatch.delenv("WATCHKEEPER_TOKEN")
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 4242)
    assert "without an admin who can sign in only the account" in refused("add eve --role admin --with-token")
    assert names(home) == ["bob"]


def test_an_admin_who_was_locked_out_is_let_in_by_the_owner(home: Path) -> None:
    earlier(home, User(name="fay", roles=(Role.ADMIN,)))
    assert [one.gravity for one in examine(home) if one.area == "users"] == [Gravity.WARNING]
    assert run(f"accounts fay {ME}")[:2] == (0, f"fay: {ME}\n")
    assert People(home).at_terminal().name == "fay"


# -- somebody can always say who the users are ------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["remove fay", "roles fay viewer", "accounts fay --none", f"accounts fay {NOBODYS}"]
)
def test_the_last_admin_who_can_sign_in_stays_one(home: Path, command: str) -> None:
    run(f"add fay --role admin --account {ME}")
    run("add gus --role admin")  # cannot sign in
    before = (home / FILE).read_bytes()
    assert "first let another admin sign in" in refused(command)
    assert (home / FILE).read_bytes() == before
    assert [one["what"] for one in told(home, "users-changed")] == ["add 'fay'", "add 'gus'"]
    run("token gus")
    assert run(command)[0] == 0


def test_the_last_admins_tokens_are_not_made_void(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = run("add fay --role admin --with-token")[1].strip()
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secret)
    assert "neither a token nor an account" in refused("token fay --revoke")
    assert run(f"accounts fay {ME}")[0] == 0
    assert run("token fay --revoke")[0] == 0


# -- the audit log ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["add eve --role admin", "remove bob", "roles bob --role admin", "accounts bob bob", "token bob"],
)
def test_who_may_not_is_refused_and_that_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    secret, kept = new_token(NOON)
    earlier(
        home,
        User(name="fay", roles=(Role.ADMIN,), accounts=("root",)),
        User(name="bob", roles=(Role.APPROVER,), tokens=(kept,)),
    )
    before = (home / FILE).read_bytes()
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secret)
    assert "it takes the role admin" in refused(command)
    monkeypatch.setenv("WATCHKEEPER_TOKEN", "wk_0_0")
    assert "is no user's" in refused(command)
    first, second = told(home, "refused")
    assert (first["by"], first["known_by"], first["permission"]) == ("bob", "token", "manage")
    assert "'bob'" in first["what"] or "'eve'" in first["what"]
    assert (second["by"], second["known_by"]) == (ME, "account")
    assert told(home, "users-changed") == []
    assert (home / FILE).read_bytes() == before


def test_a_change_is_kept_with_who_made_it_and_what_was_before_and_after(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = run("add fay --role admin --with-token")[1].strip()
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secret)
    run("add bob --role viewer --account bob")
    run("roles bob --role operator approver")
    run("accounts bob bob robert --account bobby")
    run("remove bob")
    first, *rest = told(home, "users-changed")
    viewer = {"roles": ["viewer"], "accounts": ["bob"], "tokens": []}
    both = {"roles": ["approver", "operator"], "accounts": ["bob"], "tokens": []}
    more = both | {"accounts": ["bob", "robert", "bobby"]}
    assert (first["by"], first["known_by"], first["before"]) == (ME, "account", None)
    assert first["after"] == {"roles": ["admin"], "accounts": [], "tokens": [secret.split("_")[1]]}
    assert [(one["by"], one["known_by"], one["user"]) for one in rest] == [("fay", "token", "bob")] * 4
    assert [(one["before"], one["after"]) for one in rest] == [
        (None, viewer),
        (viewer, both),
        (both, more),
        (more, None),
    ]
    assert secret not in AuditLog(home).path.read_text()


def test_who_an_account_is_known_as_made_the_change(home: Path) -> None:
    run(f"add fay --role admin --account {ME}")
    run("add bob --role viewer")
    assert [one["by"] for one in told(home, "users-changed")] == [ME, "fay"]


@pytest.mark.parametrize(
    "command",
    [
        f"add bob --role viewer --account {ME}",
        f"accounts gus {ME}",
        "add 9 --role viewer",
        "accounts gus",
        "accounts nobody bob",
        "roles nobody viewer",
        "roles gus king",
    ],
)
def test_a_command_that_fails_leaves_no_entry_that_says_it_happened(home: Path, command: str) -> None:
    run(f"add fay --role admin --account {ME}")
    run("add gus --role viewer")
    before = (home / FILE).read_bytes()
    refused(command)
    assert [one["what"] for one in told(home, "users-changed")] == ["add 'fay'", "add 'gus'"]
    assert (home / FILE).read_bytes() == before


def test_what_cannot_be_audited_does_not_happen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(f"add fay --role admin --account {ME}")
    before = (home / FILE).read_bytes()

    def full(*_: object) -> None:
        raise AuditError("the audit log cannot be written: disk full")

    monkeypatch.setattr(AuditLog, "append", full)
    assert "cannot be written" in refused("add bob --role viewer")
    assert (home / FILE).read_bytes() == before
    assert list(home.glob(f".{FILE}.*")) == []


def test_a_file_that_cannot_be_replaced_is_told_after_the_entry(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(f"add fay --role admin --account {ME}")

    def immutable(*_: object) -> Path:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", immutable)
    assert "cannot be written: Operation not permitted" in refused("add bob --role viewer")
    assert names(home) == ["fay"]
    last = list(AuditLog(home).entries())[-1]
    assert (last.kind, told(home, last.kind)[0]["what"]) == ("users-change-failed", "add 'bob'")


def test_a_users_file_that_is_not_usable_refuses_changes_too(home: Path) -> None:
    (home / FILE).write_text("users: [{name: ann")
    assert "nobody may answer" in refused("add eve --role admin --with-token")
    assert [one["what"] for one in told(home, "refused")] == ["add 'eve'"]
    assert [one.gravity for one in examine(home) if one.area == "users"] == [Gravity.ERROR]
