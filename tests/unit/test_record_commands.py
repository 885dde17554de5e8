"""The commands over kept records answer people in text, programs in JSON, and mistakes in one line."""

import getpass
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from watchkeeper.cli import approvals, audit, decisions, incidents, output, policy
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import ApprovalKind, Approvals
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.decisions import DecisionRecord, Decisions
from watchkeeper.runtime.events import Option
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.people import current_person
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility

INCIDENT, STEP, DIGEST = "INC-TEST", "INC-TEST-S1", "1" * 64


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    monkeypatch.delenv("WATCHKEEPER_SOLO", raising=False)
    with Store(tmp_path / "watchkeeper.db") as store:
        names = iter(["TEST"])
        Incidents(store, short=lambda _: next(names)).open(
            Alert.model_validate(
                {
                    "title": "api is down \x1b[31m[bold]",
                    "host": "web-1",
                    "condition": {"kind": "http", "url": "http://127.0.0.1:1/"},
                }
            )
        )
        Steps(store).add(
            Step(
                id=STEP,
                incident_id=INCIDENT,
                host="web-1",
                action="service.restart",
                arguments={"service": "api"},
                reversibility=Reversibility.COMPENSABLE,
                plan=ActionPlan(key=STEP, summary="restart api", diff="- a\n+ b", risk="requests in flight"),
                digest=DIGEST,
            )
        )
        Decisions(store).add(
            INCIDENT,
            DecisionRecord(
                role="diagnostician",
                question="What is the root cause?",
                options=(
                    Option(text="a full disk", probability=0.75),
                    Option(text="a crash", probability=0.25),
                ),
                chosen=0,
                model="m",
                quantization="int8",
                prompt_digest="0" * 64,
            ),
        )
    return tmp_path


def asked(home: Path, **changes: object) -> str:
    values: dict[str, object] = {
        "incident_id": INCIDENT,
        "step_id": STEP,
        "digest": DIGEST,
        "summary": "restart api",
        "diff": "- a\n+ b",
        "requester": "someone-else",
    }
    ago, solo = changes.pop("ago", 0), bool(changes.pop("solo", False))
    assert isinstance(ago, int)
    with Store(home / "watchkeeper.db") as store:
        now = datetime.now(UTC) - timedelta(seconds=ago)
        return Approvals(store, solo=solo, now=lambda: now).request(**(values | changes)).id  # type: ignore[arg-type]


def run(app: typer.Typer, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def mistake(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_incidents_are_listed_and_shown_without_terminal_controls(home: Path) -> None:
    listed = run(incidents.app, "list")
    assert listed.exit_code == 0
    assert INCIDENT in listed.stdout
    shown = run(incidents.app, "show", INCIDENT)
    assert "service.restart on web-1: planned" in shown.stdout
    assert "alert: api is down" in shown.stdout
    assert "[bold]" in shown.stdout
    for text in (listed.stdout, shown.stdout):
        assert "\x1b" not in text


def test_a_record_is_one_line_in_a_pipe_and_only_its_text_is_broken_on_a_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    question = asked(home, summary="restart " + "api " * 40)
    _, row = run(approvals.app, "list").stdout.splitlines()
    assert row.endswith("api")
    monkeypatch.setattr(output, "stdout_console", lambda: Console(force_terminal=True, width=80))
    approvals.list_(all_=False, incident=None)
    shown = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert max(len(line.rstrip()) for line in shown) <= 80
    assert sum(question in line for line in shown) == 1
    assert " ".join(line.split("restart")[-1].strip() for line in shown).count("api") == 40


def test_incidents_are_given_as_json(home: Path) -> None:
    assert json.loads(run(incidents.app, "list", "--json").stdout)[0]["id"] == INCIDENT
    shown = json.loads(run(incidents.app, "show", INCIDENT, "--json").stdout)
    assert [step["id"] for step in shown["steps"]] == [STEP]
    assert shown["events"][0]["kind"] == "incident-opened"


def test_nothing_yet_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    assert run(incidents.app, "list").stdout == "no incidents\n"
    assert run(approvals.app, "list").stdout == "no question waits for an answer\n"
    assert run(audit.app, "show").stdout == "no entries\n"
    assert "sound, 0 entries" in run(audit.app, "verify").stdout


def test_a_slip_in_what_is_asked_of_the_log_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    AuditLog(tmp_path).append("users-changed", {})
    slip = run(audit.app, "show", "--kind", "user-changed", "--json")
    assert (slip.exit_code, json.loads(slip.stdout)) == (0, [])
    assert slip.stderr == (
        "note: no entry of this log is of kind 'user-changed': did you mean users-changed?\n"
    )
    assert "is about 'INC-NONE'" in run(audit.app, "show", "--incident", "inc-none").stderr
    known = run(audit.app, "show", "--kind", "users-changed", "--since", "2999-01-01")
    assert (known.stdout, known.stderr) == ("no entries\n", "")


def test_decisions_are_listed_and_shown(home: Path) -> None:
    head, row = run(decisions.app, "list", INCIDENT).stdout.splitlines()
    assert head.split() == ["ID", "ROLE", "FOLLOWED", "SHARE", "OPTIONS", "ANSWER"]
    assert row.split(maxsplit=5)[1:] == ["diagnostician", "yes", "0.75", "2", "a full disk"]
    shown = run(decisions.app, "show", f"{INCIDENT}-D1").stdout
    assert "> 0.750  a full disk" in shown
    assert json.loads(run(decisions.app, "show", f"{INCIDENT}-D1", "--json").stdout)["chosen"] == 0


@pytest.mark.parametrize(
    ("app", "arguments", "said"),
    [
        (incidents.app, ("show", "INC-NONE"), "'INC-NONE'"),
        (decisions.app, ("list", "INC-NONE"), "'INC-NONE'"),
        (decisions.app, ("show", "INC-TEST-D9"), "'INC-TEST-D9'"),
        (approvals.app, ("show", "APR-NONE"), "'APR-NONE' is unknown"),
        (approvals.app, ("approve", "APR-NONE"), "'APR-NONE' is unknown"),
        (policy.app, ("check", "/nowhere/policy.yaml"), "'/nowhere/policy.yaml' cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    home: Path, app: typer.Typer, arguments: tuple[str, ...], said: str
) -> None:
    assert said in mistake(run(app, *arguments))


def test_a_question_is_shown_with_what_would_change(home: Path) -> None:
    question = asked(home)
    assert question in run(approvals.app, "list").stdout
    shown = run(approvals.app, "show", question.lower()).stdout
    for part in (
        "service.restart (version 1) on web-1",
        "compensable",
        "requests in flight",
        "- a\n+ b",
        DIGEST,
    ):
        assert part in shown


def test_an_approval_is_kept_and_audited(home: Path) -> None:
    question = asked(home)
    answered = run(approvals.app, "approve", question, "--reason", "seen")
    assert answered.stdout == f"{question}: approve, by {current_person()}\n"
    entry = list(AuditLog(home).entries())[-1]
    assert entry.kind == "approval-answered"
    assert isinstance(entry.data, dict)
    assert (entry.data["answer"], entry.data["reason"], entry.data["digest"]) == ("approve", "seen", DIGEST)
    assert "was answered approve" in mistake(run(approvals.app, "reject", question, "--reason", "no"))
    # That an answer came too late is kept, too.
    assert [entry.kind for entry in AuditLog(home).entries()] == ["approval-answered", "refused"]


def test_a_rejection_needs_a_reason(home: Path) -> None:
    question = asked(home)
    assert run(approvals.app, "reject", question).exit_code == 2
    assert (
        json.loads(run(approvals.app, "reject", question, "--reason", "no", "--json").stdout)["status"]
        == "rejected"
    )
    assert run(approvals.app, "list").stdout == "no question waits for an answer\n"
    assert "rejected" in run(approvals.app, "list", "--all").stdout


def test_ones_own_question_is_approved_only_where_the_run_that_asked_was_solo(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = asked(home, requester=current_person())
    monkeypatch.setenv("WATCHKEEPER_SOLO", "true")
    assert "another person must" in mistake(run(approvals.app, "approve", question))
    assert run(approvals.app, "reject", question, "--reason", "asked anew").exit_code == 0
    monkeypatch.delenv("WATCHKEEPER_SOLO")
    question = asked(home, requester=current_person(), solo=True)
    assert "you asked for it yourself; recorded" in run(approvals.app, "approve", question).stdout
    assert "(who asked)" in run(approvals.app, "show", question).stdout


def test_another_name_in_the_environment_makes_nobody_another_person(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = asked(home, requester=current_person())
    monkeypatch.setenv("LOGNAME", "mallory")
    assert getpass.getuser() == "mallory"
    assert "another person must" in mistake(run(approvals.app, "approve", question))


def test_an_expired_question_is_refused(home: Path) -> None:
    question = asked(home, ago=100, ttl_seconds=60)
    assert "expired unanswered" in mistake(run(approvals.app, "approve", question))


def test_a_doubt_is_answered_with_done_or_not_done(home: Path) -> None:
    question = asked(home, kind=ApprovalKind.IN_DOUBT)
    assert "'done' or 'not-done'" in mistake(run(approvals.app, "approve", question))
    assert run(approvals.app, "not-done", question).exit_code == 0


def test_an_answer_that_cannot_be_audited_is_not_given(home: Path) -> None:
    question = asked(home)
    (home / "audit").write_text("in the way")
    assert "cannot be written" in mistake(run(approvals.app, "approve", question))
    (home / "audit").unlink()
    assert "pending" in run(approvals.app, "show", question).stdout


def test_a_changed_audit_log_ends_with_code_1(home: Path) -> None:
    log = AuditLog(home)
    log.append("step", {"text": "one"})
    log.append("step", {"text": "two"})
    assert "sound, 2 entries" in run(audit.app, "verify").stdout
    assert "two" in run(audit.app, "show", "-n", "1").stdout
    assert "one" not in run(audit.app, "show", "-n", "1").stdout
    log.path.write_bytes(log.path.read_bytes().replace(b"one", b"1ne"))
    changed = run(audit.app, "verify")
    assert changed.exit_code == 1
    assert "CHANGED" in changed.stdout
    assert "problem: audit.jsonl line 2" in changed.stderr
    assert json.loads(run(audit.app, "verify", "--json").stdout)["ok"] is False


def test_a_damaged_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    (tmp_path / "watchkeeper.db").write_bytes(b"nonsense" * 1000)
    assert "is damaged" in mistake(run(incidents.app, "list"))


def test_the_commands_load_nothing_heavy_to_print_help() -> None:
    program = (
        "import sys\nfrom watchkeeper.cli import approvals, audit, decisions, incidents, policy\n"
        "heavy = {'torch', 'transformers', 'sqlalchemy', 'pydantic', 'langgraph', 'cryptography'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_policy_is_checked(home: Path) -> None:
    assert "2 rules, 0 examples: all is well" in run(policy.app, "check").stdout
    mine = home / "mine.yaml"
    mine.write_text("version: 1\nrules:\n  - {name: r, decision: ask, when: hots.name == 'x'}\n")
    said = mistake(run(policy.app, "check", str(mine)))
    assert f"{str(mine)!r} line 3" in said
    assert "'hots'" in said


def test_a_policy_explains_itself(home: Path) -> None:
    (home / "inventory.yaml").write_text(
        "hosts:\n  - name: web-1\n    labels: {environment: test}\n"
        "    services: [{name: api, supervisor: {kind: systemd}}]\n"
    )
    (home / "policy.yaml").write_text(
        "version: 1\nrules:\n"
        "  - {name: free, match: {tools: [service.*], hosts: {environment: test}}, decision: allow}\n"
        "  - {name: not-the-database, when: arguments.service == 'db', decision: deny, reason: Ours.}\n"
    )
    explain = ("explain", "service.restart", "web-1", "--arguments")
    assert "decision  allow" in run(policy.app, *explain, '{"service": "api"}').stdout
    denied = json.loads(run(policy.app, *explain, '{"service": "db"}', "--json").stdout)
    assert (denied["decision"], denied["rule"], denied["reason"]) == ("deny", "not-the-database", "Ours.")
    assert "is not JSON" in mistake(run(policy.app, *explain, "{"))
    assert "'web-9' is not in the inventory" in mistake(
        run(policy.app, "explain", "service.restart", "web-9")
    )
    assert "'service.explode' is not registered" in mistake(
        run(policy.app, "explain", "service.explode", "web-1")
    )
