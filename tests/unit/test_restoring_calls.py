"""After a restore nobody is told twice, and nobody forgotten in silence: a person releases what is held."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.calls import RULES, Listing, ask, jobs_of
from tests.clocks import FakeClock
from tests.lamp import folder_in_memory
from watchkeeper import Settings
from watchkeeper.cli import build_app
from watchkeeper.runtime.approvals import ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.backup import back_up
from watchkeeper.runtime.doctor import examine
from watchkeeper.runtime.errors import EscalationError
from watchkeeper.runtime.escalation_states import Escalation, EscalationStatus
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.outbox import NotificationStatus
from watchkeeper.runtime.people import Person, Proof
from watchkeeper.runtime.restoring import Restored, restore
from watchkeeper.runtime.restoring_calls import release_calls

ANN = Person("ann", Proof.ACCOUNT)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_in_memory() as made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def handed_over(journal: Journal) -> Escalation:
    """Call people about an incident that was handed to them: alice first, bob after five minutes."""
    approval, _ = ask(journal)
    journal.approvals.lapse(approval.id)
    incident = approval.incident_id
    journal.escalations.expired(approval)
    return journal.escalations.start_hand_over(incident, RULES, labels={}, reason="unclear")


def saved(folder: Path, clock: FakeClock) -> Path:
    settings = Settings(home=folder / "home")
    return back_up(settings, folder / "a.tar.gz", by="ann", version="0", with_key=True, now=clock).path


def restored(folder: Path, clock: FakeClock) -> Restored:
    return restore(folder / "a.tar.gz", folder / "new", by="ann", now=clock)


def statuses(journal: Journal, escalation_id: str) -> list[str]:
    return [one.status.value for one in journal.escalations.outbox.list(escalation_id)]


def listing(sink: Listing) -> Any:
    return lambda channel, rules: sink


def test_what_was_pending_is_held_until_somebody_releases_it(folder: Path, clock: FakeClock) -> None:
    with Journal(folder / "home", now=clock) as journal:
        escalation = handed_over(journal)
        saved(folder, clock)
        jobs_of(journal, listing(Listing())).work_off("w")  # the original goes on and tells alice
    clock.forward(hours=1)
    done = restored(folder, clock)
    assert done.safe.calls.held == (escalation.id,)
    (found,) = [one for one in examine(folder / "new", now=clock) if one.area == "escalation"]
    assert (found.wrong, "nobody is told" in found.what) == (True, True)
    sink = Listing()
    with Journal(folder / "new", now=clock) as journal:
        jobs = jobs_of(journal, listing(sink))
        clock.forward(hours=10)
        jobs.work_off("w")
        assert sink.sent == []
        assert statuses(journal, escalation.id) == ["held"]
        release_calls(journal.store, journal.audit, escalation.id, by=ANN, at=clock())
        jobs.work_off("w")
        assert [message.recipient for message in sink.sent] == ["alice"]
        clock.forward(minutes=4, seconds=59)
        jobs.work_off("w")
        assert len(sink.sent) == 1
        clock.forward(seconds=1)
        jobs.work_off("w")
        assert [message.recipient for message in sink.sent] == ["alice", "bob", "bob"]
        with pytest.raises(EscalationError, match="nothing is held"):
            release_calls(journal.store, journal.audit, escalation.id, by=ANN, at=clock())
        (entry,) = [entry for entry in journal.audit.entries() if entry.kind == "escalation-released"]
        assert isinstance(entry.data, dict)
        assert (entry.data["by"], entry.data["notifications"]) == ("ann", [f"{escalation.id}-1-1"])


def test_what_was_sent_before_the_backup_is_not_sent_again(folder: Path, clock: FakeClock) -> None:
    with Journal(folder / "home", now=clock) as journal:
        escalation = handed_over(journal)
        jobs_of(journal, listing(Listing())).work_off("w")
    saved(folder, clock)
    assert restored(folder, clock).safe.calls.held == (escalation.id,)
    sink = Listing()
    with Journal(folder / "new", now=clock) as journal:
        release_calls(journal.store, journal.audit, escalation.id, by=ANN, at=clock())
        jobs_of(journal, listing(sink)).work_off("w")
        assert (sink.sent, statuses(journal, escalation.id)) == ([], ["sent"])


def test_what_was_being_sent_is_not_sent_again_even_by_a_way_that_knows_what_it_sent(
    folder: Path, clock: FakeClock
) -> None:
    with Journal(folder / "home", now=clock) as journal:
        escalation = handed_over(journal)
        name = f"{escalation.id}-1-1"
        assert journal.escalations.outbox.take(name, repeatable=True, at=clock()) is None
    saved(folder, clock)
    restored(folder, clock)
    sink = Listing(repeatable=True)
    with Journal(folder / "new", now=clock) as journal:
        clock.forward(hours=1)
        jobs_of(journal, listing(sink)).work_off("w")
        assert (sink.sent, statuses(journal, escalation.id)) == ([], ["held"])


def test_of_a_question_that_expires_nobody_is_told(folder: Path, clock: FakeClock) -> None:
    with Journal(folder / "home", now=clock) as journal:
        approval, escalation = ask(journal)
    saved(folder, clock)
    done = restored(folder, clock)
    assert (done.safe.calls.held, done.safe.calls.ended) == ((), (escalation.id,))
    sink = Listing()
    with Journal(folder / "new", now=clock) as journal:
        clock.forward(hours=2)
        jobs_of(journal, listing(sink)).work_off("w")
        after = journal.escalations.get(escalation.id)
        assert (sink.sent, after.status) == ([], EscalationStatus.SILENT)
        assert "when it is put anew" in after.reason
        (left,) = journal.escalations.outbox.list(escalation.id)
        assert left.status is NotificationStatus.WITHDRAWN
        assert journal.approvals.get(approval.id).status is ApprovalStatus.EXPIRED


def test_whoever_is_on_it_needs_no_release_and_may_hand_it_on(folder: Path, clock: FakeClock) -> None:
    with Journal(folder / "home", now=clock) as journal:
        escalation = handed_over(journal)
    saved(folder, clock)
    restored(folder, clock)
    sink = Listing()
    with Journal(folder / "new", now=clock) as journal:
        jobs = jobs_of(journal, listing(sink))
        journal.escalations.acknowledge(escalation.id, by="alice")
        assert journal.escalations.get(escalation.id).held_since is None
        journal.escalations.delegate(escalation.id, by="alice", to="carol")
        jobs.work_off("w")
        assert [message.recipient for message in sink.sent] == ["carol"]


def test_the_commands_tell_what_is_held_and_release_it(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(folder / "home", now=clock) as journal:
        escalation = handed_over(journal)
        journal.incidents.set_status(escalation.incident_id, IncidentStatus.ESCALATED)
    saved(folder, clock)
    monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "new"))
    app = build_app()
    done = CliRunner().invoke(app, ["restore", str(folder / "a.tar.gz")])
    assert f"watchkeeper escalations release {escalation.id}" in done.stdout, done.stderr
    assert "held" in CliRunner().invoke(app, ["escalations", "list"]).stdout
    assert "since a restore at" in CliRunner().invoke(app, ["escalations", "show", escalation.id]).stdout
    assert CliRunner().invoke(app, ["escalations", "release", escalation.id.lower()]).exit_code == 0
    again = CliRunner().invoke(app, ["escalations", "release", escalation.id])
    assert (again.exit_code, "nothing is held" in again.stderr) == (2, True)
    kinds = [entry.kind for entry in AuditLog(folder / "new").entries()]
    assert kinds[-1] == "escalation-released"
