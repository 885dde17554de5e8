"""An approval is answered once, used once, in time, by another person, for exactly one action."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clocks import FakeClock
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import (
    Answer,
    Approval,
    ApprovalKind,
    Approvals,
    ApprovalStatus,
    action_digest,
)
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.steps import Step, Steps
from watchkeeper.runtime.store import Store
from watchkeeper.tools.action import ActionPlan, Reversibility

D1, D2 = "1" * 64, "2" * 64


@pytest.fixture
def time() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "w.db")
    condition = {"kind": "http", "url": "http://x/"}
    names = iter(["TEST"])
    incident = Incidents(store, short=lambda _: next(names)).open(
        Alert.model_validate({"title": "t", "host": "h", "condition": condition})
    )
    Steps(store).add(
        Step(
            id="INC-TEST-S1",
            incident_id=incident.id,
            host="h",
            action="service.restart",
            reversibility=Reversibility.REVERSIBLE,
            plan=ActionPlan(key="INC-TEST-S1", summary="restart"),
            digest=D1,
        )
    )
    return store


@pytest.fixture
def approvals(store: Store, time: FakeClock) -> Approvals:
    return Approvals(store, now=time)


def ask(approvals: Approvals, **changes: object) -> Approval:
    values: dict[str, object] = {
        "incident_id": "INC-TEST",
        "step_id": "INC-TEST-S1",
        "digest": D1,
        "summary": "restart api",
        "requester": "ann",
        "ttl_seconds": 60,
    }
    return approvals.request(**(values | changes))  # type: ignore[arg-type]


def test_a_yes_is_used_once(approvals: Approvals) -> None:
    asked = ask(approvals, diff="- old\n+ new")
    yes = approvals.decide(asked.id, Answer.APPROVE, by="bob", reason="looks right")
    assert (yes.status, yes.decided_by, yes.self_approved) == (ApprovalStatus.APPROVED, "bob", False)
    assert approvals.use(asked.id, D1).status is ApprovalStatus.USED
    with pytest.raises(ApprovalError, match=rf"{asked.id}.*was used at 2026-01-05 12:00:00 UTC"):
        approvals.use(asked.id, D1)
    assert approvals.get(asked.id).diff == "- old\n+ new"


def test_a_yes_is_for_its_own_action_only(approvals: Approvals) -> None:
    asked = ask(approvals)
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    with pytest.raises(ApprovalError, match=f"{asked.id}.*another action"):
        approvals.use(asked.id, D2)
    assert approvals.use(asked.id, D1).status is ApprovalStatus.USED


def test_nothing_is_used_before_a_yes_or_after_a_no(approvals: Approvals) -> None:
    asked = ask(approvals)
    with pytest.raises(ApprovalError, match="was not answered yet"):
        approvals.use(asked.id, D1)
    approvals.decide(asked.id, Answer.REJECT, by="bob", reason="not on a Friday")
    with pytest.raises(ApprovalError, match="was rejected by 'bob': not on a Friday"):
        approvals.use(asked.id, D1)


def test_a_second_answer_is_refused_with_the_first(approvals: Approvals) -> None:
    asked = ask(approvals)
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    with pytest.raises(ApprovalError, match="was answered approve by 'bob' before"):
        approvals.decide(asked.id, Answer.REJECT, by="cat")


def test_a_late_answer_is_refused(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals)
    time.forward(seconds=60)
    assert approvals.get(asked.id).status is ApprovalStatus.EXPIRED
    with pytest.raises(ApprovalError, match="expired unanswered at 2026-01-05 12:01:00"):
        approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert [a.id for a in approvals.list(status=ApprovalStatus.EXPIRED)] == [asked.id]
    assert approvals.list(status=ApprovalStatus.PENDING) == ()


def test_a_yes_lapses_when_it_is_not_used(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals)
    time.forward(seconds=59)
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    time.forward(seconds=59)
    assert approvals.get(asked.id).status is ApprovalStatus.APPROVED
    time.forward(seconds=1)
    with pytest.raises(ApprovalError, match="not used before"):
        approvals.use(asked.id, D1)
    assert approvals.expire() == 1
    assert approvals.expire() == 0


def test_who_asks_may_not_approve_but_may_reject(approvals: Approvals) -> None:
    asked = ask(approvals)
    for same in ("ann", "Ann", " ann "):
        with pytest.raises(ApprovalError, match="another person must"):
            approvals.decide(asked.id, Answer.APPROVE, by=same)
    assert approvals.decide(asked.id, Answer.REJECT, by="ann").status is ApprovalStatus.REJECTED


def test_alone_one_approves_the_lowest_tier_and_it_is_recorded(store: Store, time: FakeClock) -> None:
    solo = Approvals(store, solo=True, now=time)
    low = ask(solo)
    # Another terminal answers: that the run is solo was written down with the question.
    terminal = Approvals(store, now=time)
    assert terminal.decide(low.id, Answer.APPROVE, by="ann").self_approved
    high = ask(solo, digest=D2, tier=2)
    with pytest.raises(ApprovalError, match=r"tier 2.*tier 1 only"):
        terminal.decide(high.id, Answer.APPROVE, by="ann")
    assert not terminal.decide(high.id, Answer.APPROVE, by="bob").self_approved


def test_nobody_turns_the_question_of_a_shared_run_into_one_of_a_solo_run(
    approvals: Approvals, store: Store, time: FakeClock
) -> None:
    asked = ask(approvals)
    with pytest.raises(ApprovalError, match="another person must"):
        Approvals(store, solo=True, now=time).decide(asked.id, Answer.APPROVE, by="ann")


def test_the_top_tier_takes_two_people(approvals: Approvals) -> None:
    asked = ask(approvals, tier=3)
    first = approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert (first.status, first.missing, [v.by for v in first.votes]) == (ApprovalStatus.PENDING, 1, ["bob"])
    with pytest.raises(ApprovalError, match="was not answered yet"):
        approvals.use(asked.id, D1)
    for same in ("bob", " Bob", "ann"):
        with pytest.raises(ApprovalError, match="another person must"):
            approvals.decide(asked.id, Answer.APPROVE, by=same)
    second = approvals.decide(asked.id, Answer.APPROVE, by="cat")
    assert (second.status, second.decided_by) == (ApprovalStatus.APPROVED, "cat")
    assert [vote.by for vote in second.votes] == ["bob", "cat"]
    approvals.use(asked.id, D1)


def test_one_no_ends_a_question_of_the_top_tier(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals, tier=3)
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert approvals.decide(asked.id, Answer.REJECT, by="bob").status is ApprovalStatus.REJECTED
    with pytest.raises(ApprovalError, match="was rejected by 'bob'"):
        approvals.decide(asked.id, Answer.APPROVE, by="cat")
    late = ask(approvals, tier=3, digest=D2)
    time.forward(seconds=61)
    with pytest.raises(ApprovalError, match="expired unanswered"):
        approvals.decide(late.id, Answer.APPROVE, by="cat")


def test_two_people_who_say_yes_at_once_are_two(approvals: Approvals) -> None:
    for round_ in range(8):
        asked = ask(approvals, tier=3, digest=f"{round_}" * 64)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda by, q=asked.id: approvals.decide(q, Answer.APPROVE, by=by), ["bob", "cat"]))
        done = approvals.get(asked.id)
        assert done.status is ApprovalStatus.APPROVED
        assert {vote.by for vote in done.votes} == {"bob", "cat"}


def test_an_answer_without_a_name_is_refused(approvals: Approvals) -> None:
    with pytest.raises(ApprovalError, match="who answers is not said"):
        approvals.decide(ask(approvals).id, Answer.APPROVE, by="  ")


def test_asking_again_while_a_question_is_open_returns_it(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals)
    assert ask(approvals) == asked
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert ask(approvals).id == asked.id
    approvals.use(asked.id, D1)
    assert ask(approvals).id != asked.id


def test_an_expired_question_is_asked_anew(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals)
    time.forward(seconds=61)
    assert ask(approvals).id != asked.id


def test_a_question_in_doubt_is_answered_with_done_or_not_done(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals, kind=ApprovalKind.IN_DOUBT)
    with pytest.raises(ApprovalError, match="'done' or 'not-done', not 'approve'"):
        approvals.decide(asked.id, Answer.APPROVE, by="bob")
    assert approvals.decide(asked.id, Answer.NOT_DONE, by="ann").answer is Answer.NOT_DONE
    with pytest.raises(ApprovalError, match="it allows nothing"):
        approvals.use(asked.id, D1)
    time.forward(seconds=1e6)
    assert approvals.get(asked.id).answer is Answer.NOT_DONE
    assert approvals.get(asked.id).status is ApprovalStatus.APPROVED


def test_a_question_in_doubt_stays_open_until_it_is_answered(approvals: Approvals, time: FakeClock) -> None:
    asked = ask(approvals, kind=ApprovalKind.IN_DOUBT)
    assert asked.waits(time())
    assert approvals.lapse(asked.id)
    time.forward(seconds=1e6)
    assert approvals.expire() == 0
    late = approvals.get(asked.id)
    assert (late.status, late.waits(time())) == (ApprovalStatus.PENDING, False)
    assert late.expires_at < asked.expires_at
    assert approvals.list(status=ApprovalStatus.PENDING) == (late,)
    assert approvals.list(status=ApprovalStatus.EXPIRED) == ()
    assert ask(approvals, kind=ApprovalKind.IN_DOUBT).id == asked.id
    assert approvals.decide(asked.id, Answer.DONE, by="bob").answer is Answer.DONE
    assert not approvals.lapse(asked.id)


def test_an_unknown_approval_is_named(approvals: Approvals) -> None:
    for attempt in (
        lambda: approvals.get("APR-NONE"),
        lambda: approvals.decide("APR-NONE", Answer.APPROVE, by="bob"),
        lambda: approvals.use("APR-NONE", D1),
    ):
        with pytest.raises(ApprovalError, match="'APR-NONE' is unknown"):
            attempt()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_question_needs_time_to_be_answered(approvals: Approvals, seconds: float) -> None:
    with pytest.raises(ApprovalError, match="must be above 0"):
        ask(approvals, ttl_seconds=seconds)


def test_of_two_answers_at_once_one_counts(approvals: Approvals) -> None:
    for round_ in range(8):
        asked = ask(approvals, digest=f"{round_}" * 64)

        def answer(person: str, question: str = asked.id) -> bool:
            try:
                approvals.decide(question, Answer.APPROVE if person == "bob" else Answer.REJECT, by=person)
            except ApprovalError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            counted = list(pool.map(answer, ["bob", "cat", "dan", "eve"]))
        assert sum(counted) == 1


def test_of_processes_that_use_one_yes_at_once_one_succeeds(approvals: Approvals, store: Store) -> None:
    asked = ask(approvals, ttl_seconds=10**9)
    approvals.decide(asked.id, Answer.APPROVE, by="bob")
    program = (
        "import sys\n"
        "from watchkeeper.runtime.store import Store\nfrom watchkeeper.runtime.approvals import Approvals\n"
        "from watchkeeper.runtime.errors import ApprovalError\n"
        "approvals = Approvals(Store(sys.argv[1]))\n"
        "sys.stdin.readline()\n"
        "try:\n    approvals.use(sys.argv[2], sys.argv[3])\n"
        "except ApprovalError:\n    print('refused')\nelse:\n    print('used')\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", program, store.place, asked.id, D1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    said = [racer.communicate("go\n", timeout=60)[0].strip() for racer in racers]
    assert sorted(said) == ["refused", "refused", "refused", "used"]


def digest(**changes: object) -> str:
    values: dict[str, object] = {
        "tool": "service.restart",
        "version": 1,
        "arguments": {"service": "api", "wait": 5},
        "host": "web-1",
        "preconditions": {"state": "stopped"},
        "policy_digest": "p",
    }
    return action_digest(**(values | changes))  # type: ignore[arg-type]


def test_the_digest_depends_on_everything_that_is_approved_and_not_on_order() -> None:
    changed = [
        digest(tool="service.stop"),
        digest(version=2),
        digest(arguments={"service": "db", "wait": 5}),
        digest(host="web-2"),
        digest(preconditions={"state": "running"}),
        digest(policy_digest="q"),
    ]
    assert len({digest(), *changed}) == 7
    assert digest(arguments={"wait": 5, "service": "api"}) == digest()


def test_the_digest_tells_numbers_apart_that_json_cannot_hold() -> None:
    assert digest(arguments={"inode": 2**63}) != digest(arguments={"inode": 2**63 + 1})
