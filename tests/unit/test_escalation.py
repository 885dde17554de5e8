"""Escalations outlive processes: each call is made once, at its time, and somebody's word stops the next."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.calls import RULES, Listing, ask, jobs_of
from tests.clocks import START, FakeClock
from tests.lamp import folder_in_memory
from watchkeeper.cli import build_app, escalations
from watchkeeper.runtime import schema
from watchkeeper.runtime.approvals import Answer, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.doctor import Found, examine
from watchkeeper.runtime.errors import (
    ApprovalError,
    AuditError,
    DeliveryUnknownError,
    EscalationError,
    NotSentError,
    StoreError,
)
from watchkeeper.runtime.escalation_rules import EscalationRules
from watchkeeper.runtime.escalation_states import CallDue, Escalation, EscalationStatus, QuestionDue
from watchkeeper.runtime.events import (
    Acknowledged,
    EscalationEnded,
    Event,
    LevelReached,
    NotificationLost,
    Notified,
)
from watchkeeper.runtime.jobs import CALL, NOTIFY, Jobs, JobStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.notify import NOTIFICATIONS, FileSink, Message, TerminalSink
from watchkeeper.runtime.outbox import ATTEMPTS, NotificationStatus
from watchkeeper.runtime.people import current_person
from watchkeeper.runtime.store import Store
from watchkeeper.runtime.worker import Worker


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def kinds(journal: Journal, incident_id: str) -> list[str]:
    return [event.kind for event in journal.incidents.events(incident_id)]


def told(home: Path) -> list[tuple[str, str]]:
    path = home / NOTIFICATIONS
    lines = path.read_text().splitlines() if path.exists() else []
    return [(message["id"], message["recipient"]) for message in map(json.loads, lines)]


def test_levels_are_called_at_their_times_and_silence_is_a_no(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal)
        jobs = jobs_of(journal)
        assert jobs.work_off("w") == 1
        clock.forward(minutes=4, seconds=59)
        assert jobs.work_off("w") == 0
        clock.forward(seconds=1)
        assert jobs.work_off("w") == 3
        assert told(home) == [(f"{escalation.id}-1-1", "alice"), (f"{escalation.id}-2-1", "bob")]
        clock.forward(minutes=5)
        jobs.work_off("w")
        ended = journal.escalations.get(escalation.id)
        assert ended.status is EscalationStatus.SILENT
        assert journal.approvals.get(approval.id).status is ApprovalStatus.EXPIRED
        with pytest.raises(ApprovalError, match="expired unanswered at 2026-01-05 12:10:00"):
            journal.answer(approval.id, Answer.APPROVE, by="bob")
        assert kinds(journal, approval.incident_id)[1:] == [
            "escalation-started",
            "level-reached",
            "notified",
            "level-reached",
            "notified",
            "notified",
            "escalation-ended",
        ]
        audited = [entry.kind for entry in journal.audit.entries()]
        assert audited.count("escalation-ended") == 1


def test_a_worker_says_nothing_of_calls_that_are_made_as_they_should(home: Path) -> None:
    clock, said = FakeClock(), list[str]()
    with Journal(home, now=clock) as journal:
        _, escalation = ask(journal)
        jobs = Jobs(journal.store, now=clock)
        for _ in range(3):
            Worker(jobs, journal.halts, jobs_of(journal).tasks(), say=said.append).run(once=True)
            clock.forward(minutes=5)
        assert journal.escalations.get(escalation.id).status is EscalationStatus.SILENT
        assert said == []
        assert {job.status for job in jobs.list(kind=CALL)} == {JobStatus.DONE}


def test_silence_about_an_effect_in_doubt_ends_the_calls_and_not_the_question(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal, kind=ApprovalKind.IN_DOUBT)
        jobs = jobs_of(journal)
        for _ in range(3):
            jobs.work_off("w")
            clock.forward(minutes=5)
        assert journal.escalations.get(escalation.id).status is EscalationStatus.SILENT
        text = json.loads((home / NOTIFICATIONS).read_text().splitlines()[0])["text"]
        assert "nobody is called any more at 2026-01-05 13:00:00 UTC" in text
        assert journal.approvals.get(approval.id).status is ApprovalStatus.PENDING
        assert journal.answer(approval.id, Answer.DONE, by="bob").decided_by == "bob"


def test_timers_keep_their_time_across_a_restart(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        _, escalation = ask(journal)
    clock.forward(minutes=4)
    with Journal(home, now=clock) as journal:
        jobs_of(journal).work_off("w")
        assert journal.escalations.get(escalation.id).due_at == START + timedelta(minutes=5)
        assert journal.escalations.get(escalation.id).step == 1
    clock.forward(minutes=1)
    with Journal(home, now=clock) as journal:
        jobs_of(journal).work_off("w")
        assert journal.escalations.get(escalation.id).step == 2


def test_a_timer_that_comes_twice_changes_nothing(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal)
        jobs = jobs_of(journal)
        jobs.work_off("w")
        clock.forward(minutes=5)
        for _ in range(3):
            assert jobs.call({"escalation": escalation.id, "step": 1}) is None
        assert kinds(journal, approval.incident_id).count("level-reached") == 2
        assert len(journal.escalations.outbox.list(escalation.id, step=2)) == 2


def test_a_clock_that_was_set_back_loses_no_timer(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        _, escalation = ask(journal)
        assert jobs_of(journal).call({"escalation": escalation.id, "step": 1}) == START + timedelta(minutes=5)
        assert jobs_of(journal).question({"escalation": escalation.id}) == escalation.ends_at


@pytest.mark.parametrize("way", ["run", "serve"])
def test_while_the_audit_log_cannot_be_written_every_call_waits_and_keeps_its_turn(
    home: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(*_: object) -> None:
        raise AuditError("the disk is full")

    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        jobs = jobs_of(journal)

        def work() -> None:
            if way == "run":
                jobs.work_off("w")
            else:
                Worker(Jobs(journal.store, now=clock), journal.halts, jobs.tasks()).run(once=True)

        escalations = []
        for _ in range(3):
            escalations.append(ask(journal)[1].id)
            clock.forward(seconds=45)
        work()
        with monkeypatch.context() as outage:
            outage.setattr(journal.audit, "append", unwritable)
            clock.forward(minutes=3)
            for _ in range(20):
                clock.forward(seconds=15)
                with pytest.raises(AuditError, match="full"):
                    work()
        work()
        reached = [
            event.escalation_id
            for event in journal.incidents.events(journal.incidents.list()[0].id)
            if isinstance(event, LevelReached) and event.step == 2
        ]
        assert reached == escalations
        assert [recipient for _, recipient in told(home)] == ["alice"] * 3 + ["bob"] * 3
        clock.forward(minutes=5)
        work()
        assert {found.status for found in journal.escalations.list()} == {EscalationStatus.SILENT}


def test_a_call_that_goes_wrong_is_tried_again_and_holds_up_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        first, second = ask(journal)[1].id, ask(journal)[1].id
        jobs = jobs_of(journal)
        jobs.work_off("w")
        clock.forward(minutes=5)
        on_time = journal.escalations.on_time

        def failing(escalation_id: str, signal: CallDue | QuestionDue) -> Escalation:
            if escalation_id == first:
                raise StoreError("no luck")
            return on_time(escalation_id, signal)

        with monkeypatch.context() as trouble:
            trouble.setattr(journal.escalations, "on_time", failing)
            for _ in range(10):
                jobs.work_off("w")
                clock.forward(seconds=10)
        assert (journal.escalations.get(first).step, journal.escalations.get(second).step) == (1, 2)
        clock.forward(minutes=1)
        jobs.work_off("w")
        assert journal.escalations.get(first).step == 2


def test_a_timer_of_what_was_removed_is_over(home: Path) -> None:
    with Journal(home, now=FakeClock()) as journal:
        jobs = Jobs(journal.store, now=journal.now)
        jobs.add(CALL, {"escalation": "ESC-NONE", "step": 1})
        jobs.add(NOTIFY, {"notification": "ESC-NONE-1-1"})
        assert jobs_of(journal).work_off("w") == 2
        assert {job.status for job in jobs.list()} == {JobStatus.DONE}


def test_asking_again_calls_nobody_again(home: Path) -> None:
    with Journal(home, now=FakeClock()) as journal:
        approval, escalation = ask(journal)
        assert journal.escalations.start_question(approval, RULES, labels={}) == escalation
        assert len(journal.escalations.list()) == 1


def test_an_acknowledgement_is_audited_and_stops_the_next_level(home: Path) -> None:
    clock = FakeClock()
    heard: list[Event] = []
    with Journal(home, now=clock) as journal:
        journal.listen(heard.append)
        approval, escalation = ask(journal)
        jobs = jobs_of(journal)
        jobs.work_off("w")
        journal.escalations.acknowledge(escalation.id, by="alice", reason="on my way")
        clock.forward(minutes=30)
        jobs.work_off("w")
        assert [recipient for _, recipient in told(home)] == ["alice"]
        assert journal.approvals.get(approval.id).status is ApprovalStatus.PENDING
        entry = next(entry for entry in journal.audit.entries() if entry.kind == "acknowledged")
        assert isinstance(entry.data, dict)
        assert (entry.data["by"], entry.data["reason"]) == ("alice", "on my way")
        assert any(isinstance(event, Acknowledged) for event in heard)
        # The question keeps its own deadline.
        clock.forward(minutes=31)
        jobs.work_off("w")
        assert journal.escalations.get(escalation.id).status is EscalationStatus.SILENT
        assert journal.approvals.get(approval.id).status is ApprovalStatus.EXPIRED


def test_an_answer_ends_the_escalation_and_withdraws_what_was_not_sent(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal)
        journal.answer(approval.id, Answer.REJECT, by="carol", reason="no")
        assert journal.escalations.get(escalation.id).reason == "carol answered"
        jobs_of(journal).work_off("w")
        clock.forward(hours=2)
        jobs_of(journal).work_off("w")
        (notification,) = journal.escalations.outbox.list(escalation.id)
        assert notification.status is NotificationStatus.WITHDRAWN
        assert told(home) == []
        with pytest.raises(EscalationError, match="carol answered"):
            journal.escalations.acknowledge(escalation.id, by="alice")


def test_a_call_is_handed_to_somebody_whom_the_rules_know(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        _, escalation = ask(journal)
        with pytest.raises(EscalationError, match=r"unknown person 'eve' \(there are: alice, bob, carol\)"):
            journal.escalations.delegate(escalation.id, by="alice", to="eve")
        clock.forward(minutes=3)
        now = journal.escalations.delegate(escalation.id, by="alice", to="bob", reason="on a train")
        assert now.due_at == START + timedelta(minutes=8)
        jobs_of(journal).work_off("w")
        assert ("delegated", "on a train") in [
            (entry.kind, entry.data.get("reason"))
            for entry in journal.audit.entries()
            if isinstance(entry.data, dict)
        ]
        assert [recipient for _, recipient in told(home)][-1] == "bob"


def test_an_incident_that_was_handed_over_is_called_about_once(home: Path) -> None:
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        approval, _ = ask(journal)
        first, second = (
            journal.escalations.start_hand_over(approval.incident_id, RULES, labels={}, reason="token=abc123")
            for _ in range(2)
        )
        assert first.id == second.id
        assert "abc123" not in first.subject  # it leaves the building
        assert first.ends_at is None
        for _ in range(2):
            clock.forward(minutes=5)
            jobs_of(journal).work_off("w")
        assert journal.escalations.get(first.id).status is EscalationStatus.SILENT


# -- what people are told ---------------------------------------------------------------------------------


def test_what_was_not_sent_is_tried_again_later_and_given_up_in_the_end(home: Path) -> None:
    clock = FakeClock()
    sink = Listing(*[NotSentError("no connection")] * 99)
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal, ttl_seconds=86_400)
        jobs = jobs_of(journal, lambda channel, rules: sink)
        (sent_at,) = [clock.at]
        times = []
        while not times or times[-1] != len(sink.sent) or clock.at < sent_at + timedelta(minutes=4):
            jobs.work_off("w")
            times.append(len(sink.sent))
            clock.forward(seconds=5)
        (notification,) = journal.escalations.outbox.list(escalation.id, step=1)
        tries = [message for message in sink.sent if message.id == notification.id]
        assert notification.status is NotificationStatus.PENDING
        assert 1 < len(tries) < ATTEMPTS
        clock.forward(hours=1)
        for _ in range(20):
            jobs.work_off("w")
            clock.forward(minutes=6)
        lost = [e for e in journal.incidents.events(approval.incident_id) if isinstance(e, NotificationLost)]
        assert {event.outcome for event in lost} == {"failed"}
        assert lost[0].detail == f"no connection (tried {ATTEMPTS} times)"


def test_what_may_have_been_sent_is_recorded_and_not_sent_again(home: Path) -> None:
    clock = FakeClock()
    sink = Listing(DeliveryUnknownError("the connection broke"))
    with Journal(home, now=clock) as journal:
        approval, _ = ask(journal)
        jobs = jobs_of(journal, lambda channel, rules: sink)
        jobs.work_off("w")
        clock.forward(minutes=4)
        jobs.work_off("w")
        assert len(sink.sent) == 1
        (event,) = [
            e for e in journal.incidents.events(approval.incident_id) if isinstance(e, NotificationLost)
        ]
        assert (event.outcome, event.detail) == ("unknown", "the connection broke")


@pytest.mark.parametrize("repeatable", [True, False])
def test_what_a_crash_hides_is_sent_again_only_where_the_sink_knows_it(home: Path, repeatable: bool) -> None:
    class Crash(BaseException):
        pass

    clock = FakeClock()
    sink = Listing(Crash(), repeatable=repeatable)  # type: ignore[arg-type]  # no error, but the end
    with Journal(home, now=clock) as journal:
        approval, escalation = ask(journal)
        jobs = jobs_of(journal, lambda channel, rules: sink)
        with pytest.raises(Crash):
            jobs.work_off("w")
        clock.forward(seconds=31)
        jobs.work_off("other")  # the job is anybody's, but whoever sends may still be at it
        assert len(sink.sent) == 1
        clock.forward(seconds=90)
        jobs.work_off("other")
        (notification,) = journal.escalations.outbox.list(escalation.id, step=1)
        expected = NotificationStatus.SENT if repeatable else NotificationStatus.UNKNOWN
        assert (notification.status, len(sink.sent)) == (expected, 2 if repeatable else 1)
        last = journal.incidents.events(approval.incident_id)[-1]
        assert isinstance(last, Notified if repeatable else NotificationLost)


def message(number: int = 1) -> Message:
    return Message(
        id=f"ESC-A-1-{number}", recipient="alice", channel="file", title="t", text="x\ny", at=START
    )


def test_the_file_holds_each_message_once_and_ends_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / NOTIFICATIONS
    for number in (1, 2, 1):
        FileSink(path).send(message(number))
    with path.open("a") as file:
        file.write('{"id": "ESC-A-1-3", "reci')
    FileSink(path).send(message(3))
    *whole, torn, last = path.read_text().splitlines()
    assert [json.loads(line)["id"] for line in whole] == ["ESC-A-1-1", "ESC-A-1-2"]
    assert torn.startswith('{"id": "ESC-A-1-3"')
    assert json.loads(last)["id"] == "ESC-A-1-3"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotSentError, match="cannot be written: Is a directory"):
        FileSink(tmp_path).send(message())


def test_the_terminal_shows_each_message_once() -> None:
    shown: list[str] = []
    sink = TerminalSink(shown.append)
    for _ in range(2):
        sink.send(message())
    assert shown == ["to alice: t (ESC-A)"]


# -- at the same moment -----------------------------------------------------------------------------------


ROUNDS = int(os.environ.get("WATCHKEEPER_RACES", "200"))
LAST = EscalationRules.model_validate(
    {
        "policies": {"p": {"levels": [{"who": {"users": ["alice"]}, "wait": "5m"}]}},
        "default": "p",
        "people": {"alice": {}},
    }
)


@pytest.mark.parametrize("last", [False, True], ids=["next-level", "silence"])
def test_an_acknowledgement_and_a_deadline_at_once_have_one_outcome(home: Path, last: bool) -> None:
    outcomes: dict[str, int] = {"acknowledged": 0, "called": 0}
    clock = FakeClock()
    with Journal(home, now=clock) as journal:
        # The audit log has a lock of its own, and tests of its own: what is raced for here is the store.
        journal.audit.append = lambda kind, data: None  # type: ignore[method-assign, assignment, return-value]
        approval, _ = ask(journal, RULES)
        seeds = random.Random(7 + last)
        begun = journal.escalations.start_hand_over(
            approval.incident_id, LAST if last else RULES, labels={}, reason="a race"
        )
        for _ in range(ROUNDS):
            _begin_again(journal, begun)
            _race(journal, begun.id, clock, seeds)
            now = journal.escalations.get(begun.id)
            notified = journal.escalations.outbox.list(begun.id)
            if now.status is EscalationStatus.ACKNOWLEDGED and now.step == 1:
                outcomes["acknowledged"] += 1
                assert {one.step for one in notified} == {1}
            else:
                outcomes["called"] += 1
                assert now.status is (EscalationStatus.SILENT if last else EscalationStatus.ACKNOWLEDGED)
                assert {one.step for one in notified} == ({1} if last else {1, 2})
        events = journal.incidents.events(approval.incident_id)
    assert min(outcomes.values()) > ROUNDS / 25
    assert sum(isinstance(e, Acknowledged) for e in events) == (outcomes["acknowledged"] if last else ROUNDS)
    assert sum(isinstance(e, EscalationEnded) for e in events) == (outcomes["called"] if last else 0)
    # The question's own call, that of this escalation, and those that came after a race.
    assert sum(isinstance(e, LevelReached) for e in events) == 2 + (0 if last else outcomes["called"])


def _begin_again(journal: Journal, begun: Escalation) -> None:
    """Put an escalation back to its first call, which costs less than to begin another one."""
    table, told = schema.escalations, schema.notifications
    with journal.store.transaction() as connection:
        connection.execute(told.delete().where(told.c.step > 1))
        connection.execute(schema.jobs.delete())
        connection.execute(
            table.update()
            .where(table.c.id == begun.id)
            .values(status=begun.status.value, version=1, body=begun.model_dump_json())
        )


def _race(journal: Journal, escalation_id: str, clock: FakeClock, seeds: random.Random) -> None:
    """Acknowledge in one thread while the timer comes in another; the seed says who is likely to be first."""
    start = threading.Barrier(2)
    clock.forward(minutes=5)
    jobs = jobs_of(journal)
    head_start = seeds.choice(["person", "timer", "nobody"])
    first = threading.Event()

    def person() -> None:
        start.wait()
        if head_start == "timer":
            first.wait(0.002)
        try:
            journal.escalations.acknowledge(escalation_id, by="alice")
        except EscalationError as error:
            assert "is over since" in str(error)  # noqa: PT017 (in a thread)
        first.set()

    def timer() -> None:
        start.wait()
        if head_start == "person":
            first.wait(0.002)
        jobs.call({"escalation": escalation_id, "step": 1})
        first.set()

    threads = [threading.Thread(target=work) for work in (person, timer)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- on the command line ----------------------------------------------------------------------------------


def test_escalations_are_shown_acknowledged_and_handed_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    with Journal(home) as journal:
        _, escalation = ask(journal)
        jobs_of(journal).work_off("w")

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(escalations.app, arguments, catch_exceptions=False)
        assert ended.exit_code == 0, ended.stderr
        return ended.stdout

    row = run("list").splitlines()[1].split()
    assert row[:5] == [escalation.id, "waiting", escalation.incident_id, "1", "alice"]
    assert "restart api" in run("show", escalation.id.lower())
    assert f"{escalation.id}-1-1  alice  file  sent" in run("show", escalation.id)
    said = run("delegate", escalation.id, "--to", "bob", "--reason", "a train")
    assert "bob is called next" in said
    assert "`watchkeeper serve`, or a run, sends what waits" in said
    assert f"{current_person()} is on it" in run("ack", escalation.id)
    shown = json.loads(run("show", escalation.id, "--json"))
    assert (shown["status"], shown["step"]) == ("acknowledged", 2)
    assert json.loads(run("list", "--json"))["escalations"][0]["acknowledged_by"] == current_person()
    for arguments, said in (
        (("ack", "ESC-NONE"), "'ESC-NONE' is unknown"),
        (("delegate", escalation.id, "--to", "eve"), "unknown person 'eve'"),
    ):
        ended = CliRunner().invoke(escalations.app, arguments)
        assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)
        assert said in ended.stderr


@pytest.mark.sqlite  # the doctor looks for the file itself
def test_a_call_that_no_process_made_is_overdue_and_the_doctor_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    with Journal(home) as journal:
        _, escalation = ask(journal)

    def run(*arguments: str) -> str:
        ended = CliRunner().invoke(build_app(), arguments)
        assert ended.exit_code in {0, 1}, ended.stderr
        return " ".join(ended.output.split())

    def found(after: timedelta) -> list[Found]:
        at = datetime.now(UTC) + after
        return [one for one in examine(home, now=lambda: at) if one.area == "escalation"]

    assert "overdue" not in run("escalations", "list").lower()
    assert "overdue" not in run("escalations", "show", escalation.id).lower()
    assert found(timedelta(minutes=5)) == []  # a worker makes it in that moment
    (late,) = found(timedelta(minutes=7))
    assert (late.wrong, escalation.id in late.place) == (True, True)
    assert "was to call people again at" in late.what
    assert "`watchkeeper serve`" in late.advice
    later = datetime.now(UTC) + timedelta(minutes=7)
    monkeypatch.setattr(Store, "now", lambda _: later)
    listed = run("escalations", "list")
    assert " overdue " in listed
    assert "overdue: no process makes the call; `watchkeeper serve`, or a run, does" in listed
    assert "OVERDUE: no process makes the call" in run("escalations", "show", escalation.id)
    assert json.loads(run("escalations", "list", "--json"))["escalations"][0]["overdue"] is True
    assert json.loads(run("escalations", "show", escalation.id, "--json"))["overdue"] is True
    with Journal(home) as journal:
        journal.escalations.acknowledge(escalation.id, by="bob")
    assert found(timedelta(minutes=7)) == []
    assert "overdue" not in run("escalations", "list").lower()
