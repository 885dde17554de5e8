"""An effect is done at most once, and a crash leaves it in doubt rather than forgotten."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import Answer, Approvals, ApprovalStatus
from watchkeeper.runtime.errors import ApprovalError, LedgerError, StoreError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.ledger import Effect, EffectState, Ledger, effect_key
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Outcome, ProbeAnswer, Reversibility

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DIGEST = "1" * 64
STEP = "INC-TEST-S1"
KEY = effect_key(STEP, DIGEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "w.db")
    names = iter(["TEST"])
    Incidents(store, short=lambda _: next(names)).open(
        Alert.model_validate({"title": "t", "host": "h", "condition": {"kind": "http", "url": "http://x/"}})
    )
    Steps(store).add(
        Step(
            id=STEP,
            incident_id="INC-TEST",
            host="h",
            action="service.restart",
            reversibility=Reversibility.REVERSIBLE,
            plan=ActionPlan(key=STEP, summary="restart"),
            digest=DIGEST,
        )
    )
    return store


@pytest.fixture
def approvals(store: Store) -> Approvals:
    return Approvals(store, now=lambda: NOON)


@pytest.fixture
def ledger(store: Store, approvals: Approvals) -> Ledger:
    return Ledger(store, approvals, now=lambda: NOON)


def intend(ledger: Ledger, approval_id: str | None = None) -> Effect:
    return ledger.intend(incident_id="INC-TEST", step_id=STEP, digest=DIGEST, approval_id=approval_id)


def done(detail: str = "restarted") -> Outcome:
    return Outcome(detail=detail, changed=("api",))


def test_an_effect_goes_from_intent_to_outcome(ledger: Ledger) -> None:
    assert ledger.state(KEY) is EffectState.NONE
    assert intend(ledger).in_doubt
    assert [e.key for e in ledger.in_doubt()] == [KEY]
    effect = ledger.complete(KEY, ok=True, outcome=done())
    assert (effect.state, effect.outcome, effect.completed_at) == (EffectState.DONE, done(), NOON)
    assert ledger.in_doubt() == ()
    assert ledger.list("INC-TEST") == (effect,)


@pytest.mark.parametrize("state", ["intended", "done", "failed", "not-done", "rolled-back"])
def test_no_effect_is_intended_twice_whatever_came_of_it(ledger: Ledger, state: str) -> None:
    intend(ledger)
    if state in {"done", "failed", "rolled-back"}:
        ledger.complete(KEY, ok=state != "failed", outcome=done())
    if state == "not-done":
        ledger.settle(KEY, ProbeAnswer.NOT_DONE)
    if state == "rolled-back":
        ledger.intend_rollback(KEY)
        ledger.complete_rollback(KEY, ok=True, outcome=done("stopped again"))
    with pytest.raises(LedgerError, match=f"{KEY}.*is '{state}'"):
        intend(ledger)


def test_of_many_threads_one_may_do_it(ledger: Ledger) -> None:
    def attempt(_: int) -> bool:
        try:
            intend(ledger)
        except LedgerError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1


def test_an_intent_uses_up_its_approval_in_the_same_breath(ledger: Ledger, approvals: Approvals) -> None:
    asked = approvals.request(
        incident_id="INC-TEST", step_id=STEP, digest=DIGEST, summary="restart", requester="ann"
    )
    with pytest.raises(ApprovalError, match="not answered"):
        intend(ledger, asked.id)
    assert ledger.state(KEY) is EffectState.NONE
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert intend(ledger, asked.id).approval_id == asked.id
    assert approvals.get(asked.id).status is ApprovalStatus.USED


def test_an_intent_that_is_refused_leaves_its_approval_unused(ledger: Ledger, approvals: Approvals) -> None:
    intend(ledger)
    asked = approvals.request(
        incident_id="INC-TEST", step_id=STEP, digest=DIGEST, summary="restart", requester="ann"
    )
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    with pytest.raises(LedgerError):
        intend(ledger, asked.id)
    assert approvals.get(asked.id).status is ApprovalStatus.APPROVED


def test_an_intent_is_never_a_part_of_another_transaction(ledger: Ledger, store: Store) -> None:
    with store.transaction(), pytest.raises(StoreError, match="before its effect"):
        intend(ledger)


def test_an_outcome_needs_an_intent_and_comes_once(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="never intended"):
        ledger.complete(KEY, ok=True, outcome=done())
    intend(ledger)
    ledger.complete(KEY, ok=False, outcome=done("timed out"))
    with pytest.raises(LedgerError, match="'failed' and cannot become 'done'"):
        ledger.complete(KEY, ok=True, outcome=done())


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ProbeAnswer.DONE, EffectState.DONE),
        (ProbeAnswer.NOT_DONE, EffectState.NOT_DONE),
        (ProbeAnswer.UNKNOWN, EffectState.INTENDED),
    ],
)
def test_a_doubt_is_settled_by_a_probe_or_stays(
    ledger: Ledger, answer: ProbeAnswer, state: EffectState
) -> None:
    intend(ledger)
    assert ledger.settle(KEY, answer, by="probe").state is state
    assert bool(ledger.in_doubt("INC-TEST")) == (state is EffectState.INTENDED)


def test_a_person_who_settles_a_doubt_is_named(ledger: Ledger) -> None:
    intend(ledger)
    assert ledger.settle(KEY, ProbeAnswer.DONE, by="bob").settled_by == "bob"
    with pytest.raises(LedgerError):
        ledger.settle(KEY, ProbeAnswer.UNKNOWN)


def test_a_rollback_that_was_cut_short_may_be_begun_again(ledger: Ledger) -> None:
    intend(ledger)
    ledger.complete(KEY, ok=True, outcome=done())
    ledger.intend_rollback(KEY)
    assert ledger.in_doubt()[0].state is EffectState.ROLLING_BACK
    assert ledger.intend_rollback(KEY).rollback_attempts == 2
    assert ledger.complete_rollback(KEY, ok=False, outcome=done("port taken")).state is (
        EffectState.ROLLBACK_FAILED
    )
    ledger.intend_rollback(KEY)
    final = ledger.complete_rollback(KEY, ok=True, outcome=done("stopped again"))
    assert (final.state, final.rollback_attempts) == (EffectState.ROLLED_BACK, 3)
    with pytest.raises(LedgerError, match="'rolled-back'"):
        ledger.intend_rollback(KEY)


@pytest.mark.parametrize("answer", [None, ProbeAnswer.NOT_DONE])
def test_what_did_not_happen_is_not_taken_back(ledger: Ledger, answer: ProbeAnswer | None) -> None:
    intend(ledger)
    if answer is not None:
        ledger.settle(KEY, answer)
    with pytest.raises(LedgerError, match="cannot become 'rolling-back'"):
        ledger.intend_rollback(KEY)


def test_an_intent_survives_a_kill_right_after_it(ledger: Ledger, store: Store, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from watchkeeper.runtime.store import Store\nfrom watchkeeper.runtime.approvals import Approvals\n"
        "from watchkeeper.runtime.ledger import Ledger\n"
        "store = Store(sys.argv[1])\n"
        "ledger = Ledger(store, Approvals(store))\n"
        "ledger.intend(incident_id='INC-TEST', step_id=sys.argv[2], digest=sys.argv[3])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, store.place, STEP, DIGEST], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with Store(tmp_path / "w.db") as again:
        effects = Ledger(again, Approvals(again)).in_doubt()
    assert [(e.key, e.state) for e in effects] == [(KEY, EffectState.INTENDED)]
    with pytest.raises(LedgerError):
        intend(ledger)


def test_a_kill_before_the_commit_leaves_nothing(ledger: Ledger, store: Store, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from watchkeeper.runtime import schema\nfrom watchkeeper.runtime.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "with store.transaction() as connection:\n"
        "    connection.execute(schema.incidents.delete().where(schema.incidents.c.id == 'none'))\n"
        "    connection.execute(schema.incidents.update().values(summary='half'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, store.place], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    with Store(tmp_path / "w.db") as again:
        again.check()
        assert Incidents(again).get("INC-TEST").summary == ""
    intend(ledger)
