"""A halt stops everything until it is lifted, and is on record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lamp import ALERT, ALLOW, Lamp, orchestrator, prefers
from watchkeeper import ScriptedEngine
from watchkeeper.runtime.errors import AuditError, HaltedError
from watchkeeper.runtime.events import ApprovalRequested
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path) as journal:
        yield journal


def test_a_halt_holds_until_it_is_lifted_also_after_a_restart(journal: Journal) -> None:
    assert journal.halts.current() is None
    journal.halts.check()
    halt = journal.halts.stop(by="ann", reason="smoke")
    assert journal.halts.stop(by="bob") == halt
    with (
        Journal(journal.home) as again,
        pytest.raises(HaltedError, match=r"stopped by 'ann' at .*: smoke; go on"),
    ):
        again.halts.check()
    lifted = journal.halts.lift(by="bob", reason="no fire")
    assert lifted is not None
    assert (lifted.by, lifted.lifted_by) == ("ann", "bob")
    assert journal.halts.lift(by="bob") is None
    journal.halts.check()
    assert [(entry.kind, entry.data) for entry in journal.audit.entries()] == [
        ("halted", {"by": "ann", "reason": "smoke"}),
        ("halt-lifted", {"by": "bob", "reason": "no fire", "stopped_by": "ann"}),
    ]


def test_a_broken_audit_log_does_not_keep_anybody_from_stopping_but_from_going_on(journal: Journal) -> None:
    journal.audit.append("something", {})
    journal.audit.path.write_text("nonsense\n")
    with pytest.raises(AuditError):
        journal.halts.stop(by="ann")
    with pytest.raises(HaltedError):
        journal.halts.check()
    with pytest.raises(AuditError):
        journal.halts.lift(by="ann")
    assert journal.halts.current() is not None


def test_who_watches_is_told_once(journal: Journal) -> None:
    ended = threading.Event()
    told: list[HaltedError] = []
    watch = threading.Thread(target=journal.halts.watch, args=(ended, told.append))
    watch.start()
    journal.halts.stop(by="ann", reason="smoke")
    watch.join(5)
    assert not watch.is_alive()
    assert len(told) == 1


def test_a_watch_ends_when_it_is_told_to(journal: Journal) -> None:
    ended = threading.Event()
    watch = threading.Thread(target=journal.halts.watch, args=(ended, lambda error: None))
    watch.start()
    ended.set()
    watch.join(5)
    assert not watch.is_alive()


def test_nothing_runs_while_everything_is_stopped(tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, bulb="broken")
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), rules=ALLOW) as o:
        o.journal.halts.stop(by="ann")
        with pytest.raises(HaltedError):
            o.run(ALERT)
        o.journal.halts.lift(by="ann")
        (incident,) = o.journal.incidents.list()
        list(o.resume(incident.id))
    assert lamp.shines()


def test_a_halt_ends_a_generation_at_once_and_the_run_can_go_on(tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, bulb="broken")
    with orchestrator(tmp_path / "home", lamp, ScriptedEngine(seconds=60), rules=ALLOW) as slow:
        incident = slow.open(ALERT)
        threading.Timer(0.3, lambda: slow.journal.halts.stop(by="ann", reason="smoke")).start()
        with pytest.raises(HaltedError, match="smoke"):
            list(slow.resume(incident.id))
        slow.journal.halts.lift(by="ann")
    with orchestrator(tmp_path / "home", lamp, prefers("bulb"), rules=ALLOW) as o:
        list(o.resume(incident.id))
    assert lamp.shines()


def test_no_effect_is_begun_after_a_halt_and_its_approval_is_not_used_up(tmp_path: Path) -> None:
    lamp = Lamp.dark(tmp_path, bulb="broken")
    with orchestrator(tmp_path / "home", lamp, prefers("bulb")) as o:
        (asked,) = (event for event in o.run(ALERT, wait=False) if isinstance(event, ApprovalRequested))
        o.answer(asked.approval_id, "approve", by="bob")
        o.journal.halts.stop(by="ann")
        step = o.journal.approvals.get(asked.approval_id).step_id
        with pytest.raises(HaltedError):
            o.changes.apply(step, asked.approval_id)
        assert not lamp.shines()
        o.journal.halts.lift(by="ann")
        assert o.changes.apply(step, asked.approval_id).ok
        o.journal.halts.stop(by="ann")
        with pytest.raises(HaltedError):
            o.changes.rollback(step)
        assert lamp.shines()
        effect = o.journal.ledger.list(asked.incident_id)[0]
        assert effect.state is EffectState.DONE
