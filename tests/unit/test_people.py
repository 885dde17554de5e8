"""Who somebody is comes from the users file where there is one, and what they may do from one table."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator, Settings
from watchkeeper.cli import approvals as approvals_commands
from watchkeeper.cli import edits
from watchkeeper.cli import users as commands
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.errors import ApprovalError, IdentityError
from watchkeeper.runtime.people import People, Person, Proof, current_person
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.roles import PERMISSIONS, Permission, Role
from watchkeeper.runtime.tokens import StoredToken, new_token
from watchkeeper.runtime.users import FILE, User, Users, change_users, load_users
from watchkeeper.tools.errors import TermsChangedError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        (folder / "home").mkdir()
        yield folder / "home"


@lru_cache(maxsize=8)
def token_of(name: str) -> tuple[str, StoredToken]:
    """A token of a user, made once: its hash is slow on purpose."""
    return new_token(NOON)


def write(home: Path, **roles: str) -> dict[str, str]:
    """Write a users file with a user and a token for each name; this process's account is ann's."""
    secrets: dict[str, str] = {}
    users: list[User] = []
    for name, held in roles.items():
        secrets[name], kept = token_of(name)
        accounts = (current_person(),) if name == "ann" else ()
        users.append(
            User(name=name, roles=tuple(Role(r) for r in held.split()), accounts=accounts, tokens=(kept,))
        )
    change_users(home, lambda _: Users(users=tuple(users)))
    return secrets


def asked(o: Orchestrator, action: str = "switch.set") -> Approval:
    values = {"position": "on"} if action == "switch.set" else {}
    step = o.changes.propose(o.open(ALERT).id, host="house", action=action, arguments=values, key=action)
    o.changes.decide(step.id)
    return o.changes.ask(step.id)


def test_what_each_role_may_do_is_this_table() -> None:
    assert {role.value: {p.value for p in PERMISSIONS[role]} for role in Role} == {
        "viewer": {"look"},
        "operator": {"look", "run", "serve", "answer", "approve", "acknowledge", "review"},
        "approver": {
            "look",
            "answer",
            "approve",
            "approve-high",
            "acknowledge",
            "review",
            "promote",
            "reset-breaker",
            "lift",
            "release",
        },
        "admin": {
            "look",
            "manage",
            "acknowledge",
            "lift",
            "release",
            "back-up",
            "export-audit",
            "prune",
        },
    }


def test_without_a_users_file_names_are_as_they_are_said(home: Path) -> None:
    people = People(home)
    assert people.at_terminal() == Person(current_person(), Proof.ACCOUNT)
    assert people.at_terminal(by="bob") == Person("bob", Proof.SAID)
    assert people.at_terminal(by="bob").may(Permission.APPROVE_HIGH)
    with pytest.raises(IdentityError, match="there is no users file"):
        people.at_terminal(token="wk_0_0")


def test_with_a_users_file_a_name_must_be_proved(home: Path) -> None:
    secrets = write(home, ann="operator", bob="approver")
    people = People(home)
    assert people.at_terminal() == Person("ann", Proof.ACCOUNT, (Role.OPERATOR,), (current_person(),))
    assert people.at_terminal(by="Ann").name == "ann"
    assert people.at_terminal(by="bob", token=secrets["bob"]).proof is Proof.TOKEN
    with pytest.raises(IdentityError, match="'bob' is not who this is: the account is that of 'ann'"):
        people.at_terminal(by="bob")
    with pytest.raises(IdentityError, match="the token is that of 'bob'"):
        people.at_terminal(by="ann", token=secrets["bob"])
    for wrong in (secrets["bob"][:-1] + ("A" if secrets["bob"][-1] != "A" else "B"), "wk_1_2", "", "bob"):
        with pytest.raises(IdentityError, match="this token is no user's"):
            people.at_terminal(token=wrong)
    with pytest.raises(IdentityError, match="'bob' is not who this is"):
        people.confirm(Person("bob", Proof.SAID))


def test_who_was_removed_is_out_at_once(home: Path) -> None:
    secrets = write(home, ann="operator", bob="approver")
    people = People(home)
    bob = people.at_terminal(token=secrets["bob"])
    write(home, ann="operator")
    with pytest.raises(IdentityError, match="no user's"):
        people.confirm(bob)


def test_who_lost_what_they_were_known_by_is_out_though_they_are_a_user(home: Path) -> None:
    secrets = write(home, ann="operator", bob="approver")
    people = People(home)
    bob, ann = people.at_terminal(token=secrets["bob"]), people.at_terminal()
    assert people.confirm(bob) == bob
    _without(home, "tokens")
    with pytest.raises(IdentityError, match="the token by which 'bob' was known is theirs no more"):
        people.confirm(bob)
    assert people.still(ann) == ann
    _without(home, "accounts")
    with pytest.raises(IdentityError, match="the account by which 'ann' was known is theirs no more"):
        people.still(ann)


def _without(home: Path, what: str) -> None:
    """Take all tokens, or all accounts, from everybody."""

    def take(users: Users) -> Users:
        return Users(users=tuple(user.model_copy(update={what: ()}) for user in users.users))

    change_users(home, take)


def test_without_a_users_file_an_answer_is_known_by_the_account(home: Path, tmp_path: Path) -> None:
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch")) as o:
        question = asked(o)
        o.journal.answer(question.id, Answer.APPROVE, by=o.journal.people.at_terminal())
        (entry,) = [e for e in o.journal.audit.entries() if e.kind == "approval-answered"]
    assert isinstance(entry.data, dict)
    assert (entry.data["by"], entry.data["known_by"]) == (current_person(), "account")


def test_a_token_is_kept_as_a_salted_hash_alone(home: Path) -> None:
    secrets = write(home, ann="viewer", bob="viewer")
    text = (home / FILE).read_text()
    assert all(secret.split("_", 2)[2] not in text for secret in secrets.values())
    users = load_users(home)
    assert users is not None
    assert len({token.salt for user in users.users for token in user.tokens}) == 2
    assert (home / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.chmod(0o660), "may be written by others than its owner"),
        (lambda file: file.write_text("users: [{name: ann"), "not valid YAML"),
        (lambda file: file.write_text("users: [{name: ann, roles: [king]}]"), "line 1"),
        (lambda file: file.write_text("users: [{name: ann, roles: []}]"), "roles"),
        (
            lambda file: file.write_text(
                "users: [{name: ann, roles: [viewer]}, {name: ANN, roles: [approver]}]"
            ),
            "user 'ann' is there twice",
        ),
        (lambda file: (file.rename(file.with_name("other")), file.symlink_to("other")), "is not a file"),
    ],
)
def test_a_users_file_that_cannot_be_trusted_denies_everything(home: Path, spoil: object, said: str) -> None:
    secrets = write(home, ann="operator", bob="approver")
    assert callable(spoil)
    spoil(home / FILE)
    people = People(home)
    for attempt in (
        people.at_terminal,
        lambda: people.at_terminal(by="bob"),
        lambda: people.at_terminal(token=secrets["bob"]),
        lambda: people.identify([("authorization", f"Bearer {secrets['bob']}")], "127.0.0.1"),
    ):
        with pytest.raises(IdentityError, match=said):
            attempt()


def test_a_proxys_header_is_believed_from_the_proxies_alone(home: Path) -> None:
    secrets = write(home, bob="approver")
    settings = Settings(
        home=home, identity_header="X-Forwarded-User", identity_proxies=("10.0.0.5", "fd00::/8")
    )
    people = People.of(settings)
    by_proxy = [("x-forwarded-user", "Bob")]
    bearer = [("Authorization", f"Bearer {secrets['bob']}")]
    for peer in ("10.0.0.5", "fd00::1", "::ffff:10.0.0.5"):
        assert people.identify(by_proxy, peer) == Person("bob", Proof.PROXY, (Role.APPROVER,))
    for peer in ("10.0.0.6", "127.0.0.1", "::1", "unix", ""):
        with pytest.raises(IdentityError, match="none of the proxies"):
            people.identify(by_proxy, peer)
        assert people.identify(bearer, peer).proof is Proof.TOKEN
    with pytest.raises(IdentityError, match="more than once"):
        people.identify(by_proxy + by_proxy, "10.0.0.5")
    with pytest.raises(IdentityError, match="more than once"):
        people.identify(by_proxy + bearer, "10.0.0.5")
    with pytest.raises(IdentityError, match="'eve' is no user's"):
        people.identify([("x-forwarded-user", "eve")], "10.0.0.5")
    for nobody in ([], [("authorization", "Basic Ym9iOg==")], [("authorization", "Bearer wk_x")]):
        with pytest.raises(IdentityError):
            people.identify(nobody, "10.0.0.5")
    # Where no header is set none is believed.
    with pytest.raises(IdentityError, match="does not say who"):
        People(home, proxies=["10.0.0.5"]).identify(by_proxy, "10.0.0.5")


def test_tiers_need_roles_and_two_tokens_of_one_user_are_one_person(home: Path, tmp_path: Path) -> None:
    secrets = write(
        home, ann="operator", bob="approver", cat="approver", dan="operator", eve="viewer", fay="admin"
    )
    second, kept = new_token(NOON)

    def add(users: Users) -> Users:
        more = [
            u.model_copy(update={"tokens": (*u.tokens, kept)}) if u.name == "bob" else u for u in users.users
        ]
        return Users(users=tuple(more))

    change_users(home, add)
    rules = "{version: 1, rules: [{name: two, match: {tools: ['*']}, decision: ask, tier: 3, reason: r}]}"
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), rules=rules) as o:
        question = asked(o)
        for name in ("dan", "eve", "fay"):
            with pytest.raises(IdentityError, match=r"may not answer 'approve'.*takes the role approver"):
                o.answer(question.id, "approve", token=secrets[name])
        with pytest.raises(IdentityError, match="takes the role operator or approver"):
            o.answer(question.id, "reject", token=secrets["eve"], reason="no")
        with pytest.raises(IdentityError, match="is not who this is"):
            o.answer(question.id, "approve", by="bob")
        first = o.answer(question.id, "approve", token=secrets["bob"])
        assert (first.status, first.missing) == (ApprovalStatus.PENDING, 1)
        with pytest.raises(ApprovalError, match="said yes before"):
            o.answer(question.id, "approve", by="bob", token=second)
        assert o.answer(question.id, "approve", token=secrets["cat"]).status is ApprovalStatus.APPROVED
        *_, entry = (e.data for e in o.journal.audit.entries() if e.kind == "approval-answered")
        refused: list[Any] = [e.data for e in o.journal.audit.entries() if e.kind == "refused"]
    assert isinstance(entry, dict)
    account = current_person()
    assert [(data["by"], data["known_by"]) for data in refused] == [
        ("dan", "token"),
        ("eve", "token"),
        ("fay", "token"),
        ("eve", "token"),
        (account, "account"),
        ("bob", "token"),
    ]
    assert all(question.id in data["what"] for data in refused)
    assert secrets["dan"] not in json.dumps(refused)
    assert (entry["votes"], entry["known_by"]) == (["bob", "cat"], "token")


def test_who_asks_may_not_approve_by_a_token_either(home: Path, tmp_path: Path) -> None:
    secrets = write(home, ann="operator approver", bob="approver")
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch")) as o:
        question = asked(o)
        for token in (None, secrets["ann"]):
            with pytest.raises(ApprovalError, match="asked for by 'ann', who may not approve it"):
                o.answer(question.id, "approve", token=token)


def test_who_asked_as_an_account_may_not_approve_as_a_user(home: Path, tmp_path: Path) -> None:
    lamp, account = Lamp.dark(tmp_path, switch="off"), current_person()
    with orchestrator(home, lamp, prefers("switch"), requester=account) as o:
        question = asked(o)
        secrets = write(home, ann="operator approver", bob="approver")
        by_proxy = People(home, header="user", proxies=["10.0.0.5"]).identify([("user", "ann")], "10.0.0.5")
        for proved in ({"by": "ann"}, {"token": secrets["ann"]}, {"by": by_proxy}):
            with pytest.raises(
                ApprovalError, match=rf"asked for by 'ann' \(as '{account}'\), who may not approve it"
            ):
                o.answer(question.id, "approve", **proved)  # type: ignore[arg-type]
        assert o.answer(question.id, "approve", token=secrets["bob"]).status is ApprovalStatus.APPROVED


def test_who_asked_as_a_user_may_not_approve_as_an_account(home: Path, tmp_path: Path) -> None:
    write(home, ann="operator approver")
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch")) as o:
        question = asked(o)
        (home / FILE).unlink()
        with pytest.raises(ApprovalError, match=rf"by '{current_person()}' \(as 'ann'\), who may not"):
            o.journal.answer(question.id, Answer.APPROVE)


def test_who_had_an_incident_handled_is_known_under_each_of_their_names(home: Path, tmp_path: Path) -> None:
    lamp, account = Lamp.dark(tmp_path, switch="off"), current_person()
    with orchestrator(home, lamp, prefers("switch"), requester="worker") as o:
        o.journal.open(ALERT, by=account)
        question = asked(o)
        secrets = write(home, ann="approver", bob="approver")
        with pytest.raises(ApprovalError, match=rf"which 'ann' \(as '{account}'\) had handled"):
            o.answer(question.id, "approve", token=secrets["ann"])
        assert o.answer(question.id, "approve", token=secrets["bob"]).status is ApprovalStatus.APPROVED
        o.journal.open(ALERT, by="ann")
        (home / FILE).unlink()
        other = asked(o, "bulb.replace")
        with pytest.raises(ApprovalError, match="had handled"):
            o.journal.answer(other.id, Answer.APPROVE)


@pytest.mark.parametrize("first", ["account", "user"])
def test_an_account_and_its_user_are_one_of_two_people(home: Path, tmp_path: Path, first: str) -> None:
    rules = "{version: 1, rules: [{name: two, match: {tools: ['*']}, decision: ask, tier: 3, reason: r}]}"
    lamp, account = Lamp.dark(tmp_path, switch="off"), current_person()
    with orchestrator(home, lamp, prefers("switch"), rules=rules, requester="worker") as o:
        question = asked(o)
        if first == "user":
            write(home, ann="approver")
        o.journal.answer(question.id, Answer.APPROVE)
        if first == "user":
            (home / FILE).unlink()
        else:
            write(home, ann="approver", **{account: "approver"})
        names = [account, "ann"] if first == "user" else ["ann", account]
        with pytest.raises(ApprovalError, match=rf"'{names[0]}' \(as '{names[1]}'\) said yes before"):
            o.journal.answer(question.id, Answer.APPROVE)


def test_alone_who_asked_as_an_account_is_told_to_have_approved_their_own(home: Path, tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), requester=current_person(), solo=True) as o:
        question = asked(o)
        write(home, ann="operator")
        assert o.journal.answer(question.id, Answer.APPROVE).self_approved


def test_alone_who_had_an_incident_handled_by_another_persons_worker_may_not_approve(
    home: Path, tmp_path: Path
) -> None:
    secrets = write(home, ann="operator approver", bob="operator approver")
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), requester="ann", solo=True) as o:
        o.journal.open(ALERT, by="bob")
        question = asked(o)
        with pytest.raises(ApprovalError, match="which 'bob' had handled: another person must approve it"):
            o.answer(question.id, "approve", token=secrets["bob"])
        assert o.journal.answer(question.id, Answer.APPROVE).self_approved  # ann asks, and works alone


def test_a_yes_of_an_account_is_its_users_once_there_are_users(home: Path, tmp_path: Path) -> None:
    rules = "{version: 1, rules: [{name: two, match: {tools: ['*']}, decision: ask, tier: 3, reason: r}]}"
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), rules=rules, requester="worker") as o:
        question = asked(o)
        o.journal.answer(question.id, Answer.APPROVE)
        secrets = write(home, ann="approver", bob="approver")
        answered = o.answer(question.id, "approve", token=secrets["bob"])
    assert answered.status is ApprovalStatus.APPROVED


@pytest.mark.parametrize("bob", ["viewer", None])
def test_a_yes_that_was_not_used_goes_with_the_role_of_who_said_it(
    home: Path, tmp_path: Path, bob: str | None
) -> None:
    secrets = write(home, ann="operator", bob="approver")
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch")) as o:
        question = asked(o)
        o.answer(question.id, "approve", token=secrets["bob"])
        write(home, ann="operator", **({"bob": bob} if bob else {}))
        with pytest.raises(ApprovalError, match="'bob', who said yes before, may not any more"):
            o.apply(question.step_id)
    assert not lamp.shines()


def test_a_running_process_asks_the_policy_with_the_roles_of_this_moment(home: Path, tmp_path: Path) -> None:
    write(home, ann="operator")
    rules = (
        "{version: 1, rules: [{name: operators, match: {tools: ['*']}, decision: allow, reason: r, "
        "when: \"'operator' in requester_roles\"}]}"
    )
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), rules=rules) as o:
        incident = o.open(ALERT).id
        step = o.changes.propose(
            incident, host="house", action="switch.set", arguments={"position": "on"}, key="one"
        )
        assert o.changes.decide(step.id).decision is Verdict.ALLOW
        write(home, ann="viewer")
        with pytest.raises(TermsChangedError, match="the policy denies it by now"):
            o.apply(step.id)
        with pytest.raises(IdentityError, match=r"'ann' .viewer. may not have an incident handled"):
            o.open(ALERT)
    assert not lamp.shines()


def test_the_yes_of_who_lost_the_role_does_not_count(home: Path, tmp_path: Path) -> None:
    secrets = write(home, ann="operator", bob="approver", cat="approver")
    rules = "{version: 1, rules: [{name: two, match: {tools: ['*']}, decision: ask, tier: 3, reason: r}]}"
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch"), rules=rules) as o:
        question = asked(o)
        o.answer(question.id, "approve", token=secrets["bob"])

        def demote(users: Users) -> Users:
            return Users(
                users=tuple(
                    u.model_copy(update={"roles": (Role.VIEWER,)}) if u.name == "bob" else u
                    for u in users.users
                )
            )

        change_users(home, demote)
        with pytest.raises(IdentityError, match="'bob', who said yes before, may not any more"):
            o.answer(question.id, "approve", token=secrets["cat"])


def test_only_a_user_with_the_role_has_incidents_handled(home: Path, tmp_path: Path) -> None:
    secrets = write(home, ann="approver", bob="operator")
    lamp = Lamp.dark(tmp_path, switch="off")
    with (
        orchestrator(home, lamp, prefers("switch"), requester="ann") as o,
        pytest.raises(IdentityError, match=r"'ann' .approver. may not have an incident handled"),
    ):
        o.open(ALERT)
    with pytest.raises(IdentityError, match="'bob' is not who this is"):
        orchestrator(home, lamp, prefers("switch"), requester="bob")
    assert secrets


def test_who_may_not_answer_has_no_edit_planned(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = write(home, ann="operator", eve="viewer")
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secrets["eve"])
    planned: list[str] = []
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch")) as o:
        question = asked(o)
        monkeypatch.setattr(Changes, "check_edit", lambda *_, **__: planned.append("in the process"))
        monkeypatch.setattr(edits, "edited_arguments", lambda *_, **__: planned.append("by the command"))
        with pytest.raises(IdentityError, match=r"'eve' .viewer. may not answer 'edit'"):
            o.answer(question.id, "edit", token=secrets["eve"], arguments={"position": "off"})
        assert "'eve' (viewer) may not answer 'edit'" in run("edit", question.id, "position=off")[2]
        refused: list[Any] = [e.data for e in o.journal.audit.entries() if e.kind == "refused"]
    assert planned == []
    assert [(data["by"], data["what"]) for data in refused] == [
        ("eve", f"answer 'edit' to {question.id} (incident {question.incident_id})")
    ] * 2


# -- commands ---------------------------------------------------------------------------------------------


def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
    app = approvals_commands.app if arguments[0] in {"approve", "edit", "show"} else commands.app
    result = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_users_are_managed_by_commands_and_every_change_is_audited(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    assert run("list")[1].startswith("no users file")
    assert run("add", "fay", "--role", "admin", "--account", current_person())[0] == 0
    assert run("add", "bob", "--role", "approver", "--role", "operator", "--account", "bob")[0] == 0
    assert run("roles", "bob", "approver")[1] == "bob: approver\n"
    code, secret, told = run("token", "bob")
    assert (code, secret[:3]) == (0, "wk_")
    assert "shown once" in told
    assert People(home).at_terminal(token=secret.strip()).name == "bob"
    assert "is a user already" in run("add", "BOB", "--role", "viewer")[2]
    assert "is no role: there are viewer" in run("add", "cat", "--role", "king")[2]
    assert "account 'bob' is there twice" in run("add", "cat", "--role", "viewer", "--account", "bob")[2]
    assert "bob   approver  1       bob" in run("list")[1]
    monkeypatch.setenv("WATCHKEEPER_TOKEN", secret.strip())
    code, _, error = run("remove", "bob")
    assert code == 2
    assert "it takes the role admin" in error
    monkeypatch.delenv("WATCHKEEPER_TOKEN")
    log: list[Any] = [entry.data for entry in AuditLog(home).entries()]
    assert ("fay", "make a token of 'bob'") in [(one["by"], one["what"]) for one in log]
    assert secret.strip() not in AuditLog(home).path.read_text()


def test_roles_and_accounts_are_set_and_a_role_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home, ann="admin", bob="approver")
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    assert "'cat' is: there are viewer, operator, approver, admin" in run("add", "cat")[2]
    assert "'bob' is from now on: there are viewer" in run("roles", "bob")[2]
    assert run("roles", "bob", "operator", "--role", "viewer")[1] == "bob: operator, viewer\n"
    assert "or --none" in run("accounts", "bob")[2]
    assert run("accounts", "bob", "bob", "robert", "--account", "bob")[1] == "bob: bob, robert\n"
    users = load_users(home)
    bob = None if users is None else users.of_account("robert")
    assert bob is not None
    assert (bob.name, bob.roles) == ("bob", (Role.OPERATOR, Role.VIEWER))
    assert run("accounts", "bob", "--none")[1] == "bob: no account\n"
    assert f"account {current_person()!r} is there twice" in run("accounts", "bob", current_person())[2]


def test_a_token_answers_from_the_environment_or_a_prompt(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = write(home, ann="operator", bob="approver")
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.delenv("WATCHKEEPER_TOKEN", raising=False)
    with orchestrator(home, Lamp.dark(tmp_path, switch="off"), prefers("switch")) as o:
        question = asked(o)
    assert "who may not approve it" in run("approve", question.id)[2]
    code, said, _ = run("approve", question.id, "--token", typed=secrets["bob"] + "\n")
    assert (code, said.strip()) == (0, f"{question.id}: approve, by bob")
