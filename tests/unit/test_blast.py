"""What was touched lately, across all incidents, bounds what may be touched next."""

import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.lamp import folder_in_memory
from tests.unit.test_policy import MONDAY_NOON, REGISTRY, policy, request
from watchkeeper.runtime import schema
from watchkeeper.runtime.alerts import Alert
from watchkeeper.runtime.approvals import Answer
from watchkeeper.runtime.blast import BlastRadius, Reach, Touch
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.errors import ApprovalError, PolicyError
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import PolicyDecision, Verdict
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.action import Outcome, ProbeAnswer
from watchkeeper.tools.errors import DriftError
from watchkeeper.tools.inventory import Inventory

NAMES = [f"web-{n}" for n in range(1, 5)] + ["db-1"]
FLEET = {name: {"role": name.split("-")[0]} for name in NAMES}
INVENTORY = Inventory.model_validate(
    {"hosts": [{"name": n, "labels": labels} for n, labels in FLEET.items()]}
)


def ago(host: str, **span: float) -> Touch:
    return Touch(host=host, at=MONDAY_NOON - timedelta(**span))


def radius(*touches: Touch) -> BlastRadius:
    return BlastRadius(touches=touches, fleet=FLEET)


@pytest.mark.parametrize(
    ("touches", "span", "group", "expected"),
    [
        ((), "1h", None, Reach(hosts=1, share=0.2, actions=1)),
        ((ago("web-1", minutes=5),), "1h", None, Reach(hosts=1, share=0.2, actions=2)),
        ((ago("web-2", minutes=5),), "1h", None, Reach(hosts=2, share=0.4, actions=2)),
        ((ago("web-2", minutes=61),), "1h", None, Reach(hosts=1, share=0.2, actions=1)),
        ((ago("web-2", minutes=61),), "2h", None, Reach(hosts=2, share=0.4, actions=2)),
        ((ago("db-1", minutes=5),), "1h", "role", Reach(hosts=1, share=0.25, actions=1)),
        ((ago("web-2", minutes=5),), "1h", "role", Reach(hosts=2, share=0.5, actions=2)),
        ((ago("gone-1", minutes=5),), "1h", "role", Reach(hosts=2, share=0.5, actions=2)),
        ((ago("web-2", minutes=-3),), "1h", None, Reach(hosts=2, share=0.4, actions=2)),
        (
            (Touch(host="web-2", at=MONDAY_NOON - timedelta(days=9), unfinished=True),),
            "1h",
            None,
            Reach(hosts=2, share=0.4, actions=2),
        ),
    ],
)
def test_the_action_at_hand_is_counted_in(
    touches: tuple[Touch, ...], span: str, group: str | None, expected: Reach
) -> None:
    assert radius(*touches).within(span, host="web-1", now=MONDAY_NOON, group=group) == expected


def test_conditions_speak_of_any_time_span(tmp_path: Path) -> None:
    loaded = policy(
        tmp_path,
        "  - {name: fine, decision: allow}\n"
        "  - {name: many, when: blast_2h.hosts > 2 || blast.share >= 0.5, decision: deny}\n"
        "  - {name: often, when: blast_7d.actions >= 3, decision: ask}\n",
    )
    assert loaded.looks_back == timedelta(days=7)
    few = loaded.decide(request(blast=radius(ago("web-2", minutes=90))))
    assert few.decision is Verdict.ALLOW
    assert few.blast["2h"] == Reach(hosts=2, share=0.4, actions=2)
    many = radius(ago("web-2", minutes=90), ago("web-3", minutes=91))
    assert loaded.decide(request(blast=many)).rule == "many"
    share = radius(ago("web-2", minutes=9), ago("web-3", minutes=9))
    assert loaded.decide(request(blast=share)).rule == "many"
    often = radius(ago("web-1", days=2), ago("web-1", days=3))
    assert loaded.decide(request(blast=often)).rule == "often"


LIMITED = "  - {{name: few, decision: {0}, tier: 2, limit: {{{1}}}}}\n"


@pytest.mark.parametrize(
    ("decision", "limit", "touched", "expected"),
    [
        ("allow", "hosts: 2, per: 1h", ["web-2"], "allow"),
        ("allow", "hosts: 2, per: 1h", ["web-2", "web-3"], "deny"),
        ("allow", "hosts: 2, per: 1h, beyond: ask", ["web-2", "web-3"], "ask"),
        ("ask", "hosts: 2, per: 1h", ["web-2", "web-3"], "deny"),
        ("ask", "hosts: 2, per: 1h", ["web-1", "web-1", "web-1"], "ask"),
        ("allow", "actions: 3, per: 1h", ["web-1", "web-1"], "allow"),
        ("allow", "actions: 3, per: 1h", ["web-1", "web-1", "web-1"], "deny"),
        ("allow", "share: 0.4, per: 1h", ["web-2"], "allow"),
        ("allow", "share: 0.4, per: 1h", ["web-2", "web-3"], "deny"),
        ("allow", "hosts: 1, group: role, per: 1h", ["db-1"], "allow"),
        ("allow", "hosts: 1, group: role, per: 1h", ["web-2"], "deny"),
        ("allow", "hosts: 9, share: 0.4, per: 1h", ["web-2", "web-3"], "deny"),
    ],
)
def test_a_limit_makes_its_rule_stricter(
    tmp_path: Path, decision: str, limit: str, touched: list[str], expected: str
) -> None:
    loaded = policy(tmp_path, LIMITED.format(decision, limit))
    decided = loaded.decide(request(blast=radius(*(ago(host, minutes=5) for host in touched))))
    assert decided.decision == expected
    limited = [t.detail for t in decided.trace if t.outcome == "limited"]
    assert bool(limited) is (expected != decision)
    if limited:
        assert f"{decision} became {expected}" in limited[0]
        assert "the limit of rule 'few' is reached" in decided.reason


def test_a_limit_holds_although_another_rule_allows(tmp_path: Path) -> None:
    loaded = policy(
        tmp_path, "  - {name: any, decision: allow}\n" + LIMITED.format("allow", "hosts: 1, per: 1h")
    )
    assert loaded.decide(request(blast=radius(ago("web-2", minutes=1)))).decision is Verdict.DENY


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("decision: allow, limit: {per: 1h}", "a limit has hosts, share or actions"),
        ("decision: allow, limit: {hosts: 1}", r"limit\.per: missing"),
        ("decision: allow, limit: {hosts: 0, per: 1h}", "greater than or equal to 1"),
        ("decision: allow, limit: {share: 1.5, per: 1h}", "less than or equal to 1"),
        ("decision: allow, limit: {hosts: 1, per: an hour}", "'an hour' is not a time span"),
        ("decision: allow, limit: {hosts: 1, per: 91d}", "'91d' is not a time span of at most 90 days"),
        ("decision: deny, limit: {hosts: 1, per: 1h}", "denies anyway"),
        ("decision: ask, limit: {hosts: 1, per: 1h, beyond: ask}", "it would ask as before"),
        ("decision: allow, when: blast_1x.hosts > 1", "'blast_1x', which is not there"),
        ("decision: allow, when: blast_0h.hosts > 1", "'blast_0h', which is not there"),
    ],
)
def test_a_limit_with_a_mistake_is_refused(tmp_path: Path, rule: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        policy(tmp_path, f"  - {{name: r, {rule}}}\n")


class Now:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.moment = MONDAY_NOON

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


class Worker:
    """One process' way to change things: its own connection to the same store."""

    def __init__(self, home: Path, rules: Policy, now: Now) -> None:
        self.journal = Journal(home, now=now)
        self.rules = rules
        site = Site(INVENTORY, REGISTRY, rules, home)
        self.changes = Changes(site, self.journal, requester="alice", approval_ttl=60)

    def incident(self, host: str) -> str:
        condition = {"kind": "http", "url": f"http://{host}/"}
        return self.journal.open(
            Alert.model_validate({"title": host, "host": host, "condition": condition})
        ).id

    def permits(self, host: str) -> bool:
        """Whether the policy lets a host be touched after what the ledger knows by now."""
        touches = self.journal.ledger.touches(MONDAY_NOON - timedelta(hours=1))
        asked = request(host=host, blast=BlastRadius(touches=touches, fleet=FLEET))
        return self.rules.decide(asked).decision is Verdict.ALLOW

    def step(self, host: str, key: str = "one") -> Step:
        step = self.changes.propose(
            self.incident(host), host=host, action="service.restart", arguments={}, key=key
        )
        self.changes.decide(step.id)
        return self.journal.steps.get(step.id)


def limited(tmp_path: Path, decision: str = "allow", limit: str = "hosts: 1, per: 1h") -> Policy:
    return policy(tmp_path, f"  - {{name: few, decision: {decision}, limit: {{{limit}}}}}\n")


def test_effects_of_all_incidents_count_until_they_are_too_old(home: Path, tmp_path: Path) -> None:
    now = Now()
    worker = Worker(home, limited(tmp_path), now)
    first, second = worker.step("web-1"), worker.step("web-2")
    assert first.policy is not None
    assert first.policy.decision is Verdict.ALLOW
    (home / "hosts" / "web-1").mkdir(parents=True)
    assert worker.changes.apply(first.id).ok
    with pytest.raises(DriftError, match="2 hosts would be touched within 1h, and 1 may be"):
        worker.changes.apply(second.id)
    assert worker.journal.ledger.list(second.incident_id) == ()
    again = worker.step("web-2", "two")
    assert again.policy is not None
    assert again.policy.decision is Verdict.DENY
    now.moment += timedelta(hours=2)
    (home / "hosts" / "web-2").mkdir(parents=True)
    assert worker.changes.apply(second.id).ok


def test_an_approval_is_not_used_up_where_the_limit_is_reached(home: Path, tmp_path: Path) -> None:
    now = Now()
    worker = Worker(home, limited(tmp_path, "ask"), now)
    first, second = worker.step("web-1"), worker.step("web-2")
    approvals = {}
    for step in (first, second):
        asked = worker.changes.ask(step.id)
        approvals[step.id] = worker.journal.answer(asked.id, Answer.APPROVE, by="bob").id
    (home / "hosts" / "web-1").mkdir(parents=True)
    assert worker.changes.apply(first.id, approvals[first.id]).ok
    with pytest.raises(DriftError, match="the policy denies it by now: the limit"):
        worker.changes.apply(second.id, approvals[second.id])
    assert worker.journal.approvals.get(approvals[second.id]).status.value == "approved"
    with pytest.raises(ApprovalError, match="used"):
        worker.journal.approvals.use(approvals[first.id], first.digest)


@pytest.mark.parametrize(
    ("then", "counted"),
    [("intended", True), ("done", True), ("failed", True), ("not-done", False), ("rolling-back", True)],
)
def test_what_did_not_take_place_touched_nothing(
    home: Path, tmp_path: Path, then: str, counted: bool
) -> None:
    now = Now()
    worker = Worker(home, limited(tmp_path), now)
    step = worker.step("web-1")
    ledger = worker.journal.ledger
    effect = ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest)
    if then == "not-done":
        ledger.settle(effect.key, ProbeAnswer.NOT_DONE)
    elif then != "intended":
        ledger.complete(effect.key, ok=then != "failed", outcome=Outcome(detail=then))
    if then == "rolling-back":
        ledger.intend_rollback(effect.key)
    assert bool(ledger.touches(now.moment - timedelta(hours=1))) is counted
    other = worker.step("web-2")
    assert other.policy is not None
    assert (other.policy.decision is Verdict.DENY) is counted
    now.moment += timedelta(days=30)
    unfinished = then in {"intended", "rolling-back"}
    assert bool(ledger.touches(now.moment - timedelta(hours=1))) is unfinished


def test_taking_back_touches_again(home: Path, tmp_path: Path) -> None:
    now = Now()
    worker = Worker(home, limited(tmp_path), now)
    step = worker.step("web-1")
    ledger = worker.journal.ledger
    key = ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest).key
    ledger.complete(key, ok=True, outcome=Outcome(detail="done"))
    now.moment += timedelta(hours=3)
    assert ledger.touches(now.moment - timedelta(hours=1)) == ()
    ledger.intend_rollback(key)
    ledger.complete_rollback(key, ok=True, outcome=Outcome(detail="back"))
    assert ledger.touches(now.moment - timedelta(hours=1)) == (Touch(host="web-1", at=now.moment),)


ROUNDS = int(os.environ.get("WATCHKEEPER_RACES", "100"))


def test_two_workers_do_not_both_slip_under_a_limit(home: Path, tmp_path: Path) -> None:
    # Each round begins with an empty ledger, and has sleeps of its own at every seam.
    now = Now()
    rules = limited(tmp_path)
    workers = [Worker(home, rules, now), Worker(home, rules, now)]
    steps = [worker.step(host) for worker, host in zip(workers, ("web-1", "web-2"), strict=True)]
    done: list[list[int]] = [[] for _ in range(ROUNDS)]
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        worker, step = workers[number], steps[number]
        for round_number in range(ROUNDS):
            chance = random.Random(f"{round_number}-{number}")
            barrier.wait()
            if number == 0:
                with worker.journal.store.transaction() as connection:
                    connection.execute(schema.effects.delete())
            barrier.wait()

            def check(chance: random.Random = chance) -> None:
                time.sleep(chance.choice((0, 0.0002)))
                if not worker.permits(step.host):
                    raise DriftError(f"{step.host} is one host too many")
                time.sleep(chance.choice((0, 0.0002)))

            time.sleep(chance.choice((0, 0.0001, 0.0002)))
            digest = f"{round_number:064d}"
            try:
                worker.journal.ledger.intend(
                    incident_id=step.incident_id, step_id=step.id, digest=digest, check=check
                )
            except DriftError:
                continue
            done[round_number].append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(winners) for winners in done] == [1] * ROUNDS
    assert {winners[0] for winners in done} == {0, 1}


def test_asked_outside_of_the_transaction_both_would_slip_under_it(home: Path, tmp_path: Path) -> None:
    now = Now()
    rules = limited(tmp_path)
    workers = [Worker(home, rules, now), Worker(home, rules, now)]
    steps = [worker.step(host) for worker, host in zip(workers, ("web-1", "web-2"), strict=True)]
    assert all(worker.permits(step.host) for worker, step in zip(workers, steps, strict=True))
    for worker, step in zip(workers, steps, strict=True):
        worker.journal.ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest)
    assert len(workers[0].journal.ledger.in_doubt()) == 2


@pytest.mark.parametrize("seed", range(20))
def test_two_changes_at_once_touch_one_host(home: Path, tmp_path: Path, seed: int) -> None:
    now = Now()
    rules = limited(tmp_path)
    workers = [Worker(home, rules, now), Worker(home, rules, now)]
    for host in ("web-1", "web-2"):
        (home / "hosts" / host).mkdir(parents=True)
    steps = [worker.step(host) for worker, host in zip(workers, ("web-1", "web-2"), strict=True)]
    applied: list[str] = []

    def work(number: int) -> None:
        time.sleep(random.Random(f"{seed}-{number}").random() / 500)
        try:
            applied.append(workers[number].changes.apply(steps[number].id).state.value)
        except DriftError as error:
            applied.append(str(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said == EffectState.DONE.value for said in applied) == [False, True]
    assert any("2 hosts would be touched" in said for said in applied)
    assert sum(1 for host in ("web-1", "web-2") if any((home / "hosts" / host).iterdir())) == 1


def test_a_decision_that_was_kept_before_there_was_a_quorum_takes_two_at_the_top() -> None:
    old = {"decision": "ask", "tier": 3, "rule": "r", "reason": "", "policy_digest": "0"}
    assert PolicyDecision.model_validate(old).quorum == 2
    assert PolicyDecision.model_validate(old | {"tier": 1}).quorum == 1


@pytest.mark.parametrize(
    ("rule", "quorum"),
    [("tier: 1", 1), ("tier: 2", 1), ("tier: 3", 2), ("tier: 1, quorum: 3", 3), ("tier: 3, quorum: 1", 2)],
)
def test_a_rule_says_how_many_people_must_say_yes(tmp_path: Path, rule: str, quorum: int) -> None:
    decided = policy(tmp_path, f"  - {{name: r, decision: ask, {rule}}}\n").decide(request())
    assert decided.quorum == quorum


def test_the_largest_quorum_of_the_rules_that_ask_counts(tmp_path: Path) -> None:
    rules = (
        "  - {name: high, decision: ask, tier: 2}\n  - {name: many, decision: ask, quorum: 3}\n"
        "  - {name: free, decision: allow, quorum: 3}\n"
    )
    decided = policy(tmp_path, rules).decide(request())
    assert (decided.tier, decided.quorum, decided.rule) == (2, 3, "high")


def test_roles_of_the_requester_are_usable(tmp_path: Path) -> None:
    loaded = policy(tmp_path, "  - {name: r, decision: allow, when: \"'operator' in requester_roles\"}\n")
    assert loaded.decide(request()).decision is Verdict.DENY
    assert loaded.decide(request(requester_roles=["operator"])).decision is Verdict.ALLOW
