"""Whatever people, the clock and a run do at once to a question, it has one outcome, and the log says it.

Each race is run many times on one database with two threads that start together; a seed says how far the
clock stands before the deadline, and who is held up for how long. ``WATCHKEEPER_RACES`` sets how often.
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lamp import ALERT, folder_in_memory
from watchkeeper.runtime.answers import give_answer
from watchkeeper.runtime.approvals import Answer, Approval, Approvals, ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.ledger import Ledger
from watchkeeper.runtime.people import People
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility

ROUNDS = int(os.environ.get("WATCHKEEPER_RACES", "40"))
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TTL = 10
Act = Callable[[Approval], None]


class World:
    """One database with many questions, a clock that is moved by hand, and two threads."""

    def __init__(self, home: Path) -> None:
        self.clock = NOON
        self.store = Store(home / "watchkeeper.db")
        self.incident = Incidents(self.store).open(ALERT).id
        self.approvals = Approvals(self.store, now=lambda: self.clock)
        self.ledger = Ledger(self.store, self.approvals, now=lambda: self.clock)
        self.audit = AuditLog(home)
        self.people = People(home)
        step = Step(
            id=f"{self.incident}-S1",
            incident_id=self.incident,
            host="house",
            action="switch.set",
            reversibility=Reversibility.REVERSIBLE,
            plan=ActionPlan(key="k", summary="s"),
            digest="0" * 64,
        )
        self.step = Steps(self.store).add(step).id
        begun = time.perf_counter()
        self.approvals.decide(self.ask(10**9).id, Answer.APPROVE, by="bob")
        self.pace = time.perf_counter() - begun

    def ask(self, number: int, *, quorum: int = 1) -> Approval:
        return self.approvals.request(
            incident_id=self.incident,
            step_id=self.step,
            digest=f"{number:064x}",
            summary="s",
            requester="ann",
            ttl_seconds=TTL,
            quorum=quorum,
        )

    def says(self, answer: Answer, by: str) -> Act:
        def act(asked: Approval) -> None:
            arguments = {"position": "on"} if answer is Answer.EDIT else None
            give_answer(
                self.store,
                self.approvals,
                self.audit,
                self.people,
                asked.id,
                answer,
                by=by,
                reason="why",
                arguments=dict(arguments) if arguments else None,
            )

        return act

    def executes(self, asked: Approval) -> None:
        self.ledger.intend(
            incident_id=self.incident, step_id=self.step, digest=asked.digest, approval_id=asked.id
        )

    def late(self, asked: Approval) -> None:
        """Let the deadline pass, and mark what expired."""
        self.clock = asked.expires_at + timedelta(microseconds=1)
        self.approvals.expire()

    def race(self, one: Act, other: Act, asked: Approval, seed: random.Random) -> tuple[bool, bool]:
        """Let two act at once; returns whether each of them was let."""
        start = threading.Barrier(2)
        let = [False, False]
        # As far as an answer takes, and farther at times: each of them comes first in some rounds.
        holds = [0.0, 0.0]
        holds[seed.randrange(2)] = seed.choice((0, 1, 3)) * seed.random() * self.pace

        def run(number: int, act: Act) -> None:
            start.wait()
            time.sleep(holds[number])
            try:
                act(asked)
            except ApprovalError:
                return
            let[number] = True

        thread = threading.Thread(target=run, args=(1, other))
        thread.start()
        run(0, one)
        thread.join()
        return let[0], let[1]

    def audited(self) -> dict[str, list[str]]:
        """The answers in the audit log, by question."""
        found: dict[str, list[str]] = {}
        for entry in self.audit.entries():
            if entry.kind != "approval-answered":
                continue
            assert isinstance(entry.data, dict)
            found.setdefault(str(entry.data["approval_id"]), []).append(
                f"{entry.data['answer']} by {entry.data['by']}"
            )
        return found


@pytest.fixture
def world() -> Iterator[World]:
    with folder_in_memory() as folder:
        world = World(folder)
        yield world
        world.store.close()


@pytest.mark.parametrize("quorum", [1, 2])
def test_two_approvers_at_once_are_two_votes_or_one_answer(world: World, quorum: int) -> None:
    outcomes: Counter[tuple[bool, bool]] = Counter()
    asked_of: dict[str, int] = {}
    for number in range(ROUNDS // 2):
        seed = random.Random(number)
        asked = world.ask(number, quorum=quorum)
        let = world.race(world.says(Answer.APPROVE, "bob"), world.says(Answer.APPROVE, "cat"), asked, seed)
        outcomes[let] += 1
        found = world.approvals.get(asked.id)
        assert found.status is ApprovalStatus.APPROVED
        assert len({vote.by for vote in found.votes}) == quorum
        assert sum(let) == quorum
        world.executes(asked)
        asked_of[asked.id] = quorum
    audited = world.audited()
    assert {question: len(said) for question, said in audited.items()} == asked_of
    assert world.audit.verify().ok
    if quorum == 1:
        assert len(outcomes) == 2, "one of the two always came first: this was no race"


def test_a_yes_and_the_deadline_at_once_are_a_yes_in_time_or_a_refusal(world: World) -> None:
    outcomes: Counter[str] = Counter()
    answered: set[str] = set()
    for number in range(ROUNDS):
        seed = random.Random(number)
        asked = world.ask(number)
        world.clock = asked.expires_at - timedelta(microseconds=seed.randrange(1, 3))
        let, _ = world.race(world.says(Answer.APPROVE, "bob"), world.late, asked, seed)
        found = world.approvals.get(asked.id)
        # A yes in time is good for as long again: the deadline of the question does not end it.
        assert found.status is (ApprovalStatus.APPROVED if let else ApprovalStatus.EXPIRED)
        assert (found.decided_by, found.decided_at is not None) == (("bob", True) if let else (None, False))
        if let:
            assert found.decided_at is not None
            assert found.decided_at < found.expires_at
            answered.add(asked.id)
        outcomes[found.status.value] += 1
    assert world.audited() == {question: ["approve by bob"] for question in answered}
    assert len(outcomes) == 2, "the deadline always came first, or never: this was no race"


def test_an_edit_and_an_execution_at_once_never_both_take_place(world: World) -> None:
    outcomes: Counter[tuple[bool, bool]] = Counter()
    expected: dict[str, list[str]] = {}

    def approve_and_execute(asked: Approval) -> None:
        world.says(Answer.APPROVE, "bob")(asked)
        world.executes(asked)

    for number in range(ROUNDS):
        asked = world.ask(number)
        executed, edited = world.race(
            approve_and_execute, world.says(Answer.EDIT, "cat"), asked, random.Random(number)
        )
        assert executed != edited
        done = world.ledger.find(f"{world.step}:{asked.digest}") is not None
        assert done == executed
        found = world.approvals.get(asked.id)
        assert found.status is (ApprovalStatus.USED if executed else ApprovalStatus.ANSWERED)
        with pytest.raises(ApprovalError):
            world.approvals.use(asked.id, asked.digest)
        expected[asked.id] = ["approve by bob" if executed else "edit by cat"]
        outcomes[executed, edited] += 1
    assert world.audited() == expected
    assert len(outcomes) == 2, "one of the two always came first: this was no race"


def test_a_yes_and_an_end_at_once_are_one_of_them(world: World) -> None:
    outcomes: Counter[tuple[bool, bool]] = Counter()
    expected: dict[str, list[str]] = {}
    for number in range(ROUNDS):
        asked = world.ask(number)
        yes, end = world.race(
            world.says(Answer.APPROVE, "bob"),
            world.says(Answer.TERMINATE, "cat"),
            asked,
            random.Random(number),
        )
        assert yes != end
        found = world.approvals.get(asked.id)
        assert (found.answer, found.decided_by) == (
            (Answer.APPROVE, "bob") if yes else (Answer.TERMINATE, "cat")
        )
        expected[asked.id] = ["approve by bob" if yes else "terminate by cat"]
        outcomes[yes, end] += 1
    assert world.audited() == expected
    assert len(outcomes) == 2, "one of the two always came first: this was no race"
