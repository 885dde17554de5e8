"""A change goes from its plan over policy and people to its effect and back, each step at most once."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command
from sqlalchemy import Engine, event

from tests.lamp import ALERT, ALLOW, INVENTORY, Lamp, folder_in_memory
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.audit import AuditLog
from watchkeeper.runtime.changes import Changes
from watchkeeper.runtime.clock import Clock, utc_now
from watchkeeper.runtime.errors import ApprovalError, AuditError, LedgerError
from watchkeeper.runtime.events import (
    ApprovalRequested,
    EffectDone,
    EffectInDoubt,
    PlanProposed,
    PolicyDecided,
    RolledBack,
)
from watchkeeper.runtime.gate import GateState, build_gate
from watchkeeper.runtime.journal import Journal
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.policy import Policy
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.site import Site
from watchkeeper.runtime.steps import Step, StepStatus
from watchkeeper.tools.action import Outcome, ProbeAnswer
from watchkeeper.tools.builtin import builtin_registry
from watchkeeper.tools.errors import ArgumentError, DriftError, PlanError, UnknownHostError, UnknownToolError
from watchkeeper.tools.host import LocalHost, Target

DENY = "{version: 1, rules: [{name: never, match: {tools: ['*']}, decision: deny, reason: frozen}]}"


@dataclass
class World:
    """A lamp, its incident, and what may change it."""

    lamp: Lamp
    home: Path
    journal: Journal
    changes: Changes
    incident: str

    def propose(self, action: str = "switch.set", *, key: str = "one", **arguments: Any) -> Step:
        if action == "switch.set":
            arguments = {"position": "on"} | arguments
        return self.changes.propose(
            self.incident, host="house", action=action, arguments=arguments, hypothesis="dark", key=key
        )

    def asked(self, action: str = "switch.set") -> tuple[Step, Approval]:
        step = self.propose(action)
        self.changes.decide(step.id)
        return step, self.changes.ask(step.id)

    def approved(self, action: str = "switch.set") -> tuple[Step, Approval]:
        step, asked = self.asked(action)
        return step, self.journal.answer(asked.id, Answer.APPROVE, by="bob")

    def effect(self, step: Step) -> EffectState:
        return self.journal.ledger.state(effect_key(step.id, step.digest))

    def status(self, step: Step) -> StepStatus:
        return self.journal.steps.get(step.id).status

    def events(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.journal.incidents.events(self.incident) if isinstance(event, kind)]

    def times(self, who: str) -> int:
        return self.lamp.changes()[who]


def build(
    home: Path,
    *,
    rules: str | None = None,
    knows: bool = True,
    solo: bool = False,
    now: Clock = utc_now,
    **parts: str,
) -> World:
    home.mkdir(exist_ok=True)
    lamp = Lamp(home) if (home / "parts.log").exists() else Lamp.dark(home, **({"switch": "off"} | parts))
    registry = builtin_registry()
    for tool in lamp.tools(knows=knows):
        registry.add(tool)
    if rules is None:
        policy = Policy.default(registry)
    else:
        (home / "policy.yaml").write_text(rules)
        policy = Policy.load(home / "policy.yaml", registry)
    journal = Journal(home, solo=solo, now=now)
    site = Site(INVENTORY, registry, policy, home)
    changes = Changes(site, journal, requester="ann", approval_ttl=60)
    return World(lamp, home, journal, changes, journal.incidents.open(ALERT).id)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


@pytest.fixture
def world(home: Path) -> World:
    return build(home)


def test_a_plan_changes_nothing_and_the_same_occasion_gives_the_same_step(world: World) -> None:
    step = world.propose()
    assert step.plan.diff == "-switch: off\n+switch: on"
    assert world.propose() == step
    assert world.propose(key="two").id != step.id
    assert [event.step_id for event in world.events(PlanProposed)] == [
        f"{world.incident}-S{n}" for n in (1, 2)
    ]
    assert set(world.lamp.changes()) == {"somebody"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"host": "shed"}, UnknownHostError),
        ({"action": "lamp.polish"}, UnknownToolError),
        ({"arguments": {"position": "sideways"}}, ArgumentError),
        ({"arguments": {"position": "on", "force": True}}, ArgumentError),
    ],
)
def test_what_is_not_there_is_not_planned(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    given: dict[str, Any] = {"host": "house", "action": "switch.set", "arguments": {"position": "on"}}
    with pytest.raises(error):
        world.changes.propose(world.incident, **(given | changes), key="one")
    assert world.journal.steps.list(world.incident) == ()


def test_what_makes_no_sense_on_its_target_is_not_planned(home: Path) -> None:
    world = build(home, switch="stuck")
    with pytest.raises(PlanError, match="stuck"):
        world.propose()


def test_an_approved_change_is_done_once_however_often_it_is_asked_for(world: World) -> None:
    step, approval = world.approved()
    for _ in range(3):
        applied = world.changes.apply(step.id, approval.id)
        assert (applied.state, applied.detail) == (EffectState.DONE, "the switch is on")
    assert world.times(step.id) == 1
    assert world.journal.approvals.get(approval.id).status is ApprovalStatus.USED
    assert world.changes.verify(step.id).ok
    assert world.status(step) is StepStatus.VERIFIED
    assert len(world.events(EffectDone)) == 1


def test_people_are_asked_once_whatever_they_answered(world: World) -> None:
    step, asked = world.asked()
    assert world.changes.ask(step.id).id == asked.id
    world.journal.answer(asked.id, Answer.REJECT, by="bob", reason="no")
    assert world.changes.ask(step.id).status is ApprovalStatus.REJECTED
    assert [event.approval_id for event in world.events(ApprovalRequested)] == [asked.id]
    with pytest.raises(ApprovalError, match="was rejected by 'bob': no"):
        world.changes.apply(step.id, asked.id)
    assert world.effect(step) is EffectState.NONE


def test_without_a_yes_nothing_is_done(world: World) -> None:
    step = world.propose()
    with pytest.raises(ApprovalError, match="not allowed by the policy"):
        world.changes.apply(step.id)
    with pytest.raises(ApprovalError, match="not put to people"):
        world.changes.ask(step.id)
    world.changes.decide(step.id)
    with pytest.raises(ApprovalError, match="needs an approval"):
        world.changes.apply(step.id)
    asked = world.changes.ask(step.id)
    with pytest.raises(ApprovalError, match="not answered yet"):
        world.changes.apply(step.id, asked.id)
    assert set(world.lamp.changes()) == {"somebody"}


def test_the_yes_to_another_change_does_not_do(world: World) -> None:
    _, approval = world.approved()
    world.lamp.put("bulb", "dusty")
    other = world.propose("bulb.replace", key="two")
    world.changes.decide(other.id)
    with pytest.raises(ApprovalError, match="another action"):
        world.changes.apply(other.id, approval.id)
    assert world.effect(other) is EffectState.NONE


def test_what_the_policy_denies_is_not_done_even_with_a_yes(home: Path) -> None:
    world = build(home, rules=DENY)
    step = world.propose()
    assert world.changes.decide(step.id).decision is Verdict.DENY
    assert world.status(step) is StepStatus.REFUSED
    with pytest.raises(ApprovalError, match="not allowed by the policy"):
        world.changes.apply(step.id, "APR-NONE")


def test_a_change_of_the_target_after_the_yes_is_noticed_and_named(world: World) -> None:
    step, approval = world.approved()
    world.lamp.put("switch", "dim")
    with pytest.raises(DriftError, match="the target changed since it was planned: switch"):
        world.changes.apply(step.id, approval.id)
    world.lamp.put("switch", "stuck")
    with pytest.raises(DriftError, match="cannot be planned any more: the switch is stuck"):
        world.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.NONE
    # The yes was not used up: as long as nothing was done, what was approved may come true again.
    world.lamp.put("switch", "off")
    assert world.changes.apply(step.id, approval.id).ok


def test_a_change_of_the_policy_after_the_yes_is_noticed(home: Path) -> None:
    world = build(home, rules=ALLOW.replace("allow", "ask"))
    step, approval = world.approved()
    stricter = build(home, rules=ALLOW.replace("allow", "ask").replace("a toy", "a machine"))
    with pytest.raises(DriftError, match="the policy changed"):
        stricter.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.NONE


NIGHT = """
version: 1
rules:
  - {name: all, match: {tools: ["*"]}, decision: DAY, reason: a toy}
  - {name: night, match: {tools: ["*"]}, decision: NIGHT, tier: 2, when: now.getHours() >= 22, reason: late}
"""


@pytest.mark.parametrize(
    ("day", "night", "said"),
    [
        ("allow", "deny", "the policy denies it by now: late"),
        ("ask", "deny", "the policy denies it by now: late"),
        ("allow", "ask", "asks for an approval of tier 2 by now: late"),
        ("ask", "ask", "asks for an approval of tier 2 by now: late"),
    ],
)
def test_what_the_policy_forbids_by_now_is_not_done_whatever_it_said_before(
    home: Path, day: str, night: str, said: str
) -> None:
    moments = [datetime(2026, 5, 4, 21, 59, 30, tzinfo=UTC)]
    world = build(home, rules=NIGHT.replace("DAY", day).replace("NIGHT", night), now=lambda: moments[-1])
    step = world.propose()
    world.changes.decide(step.id)
    approval = None
    if day == "ask":
        approval = world.journal.answer(world.changes.ask(step.id).id, Answer.APPROVE, by="bob").id
    moments.append(moments[0] + timedelta(seconds=45))
    with pytest.raises(DriftError, match=said):
        world.changes.apply(step.id, approval)
    assert world.effect(step) is EffectState.NONE
    moments.append(moments[0])
    assert world.changes.apply(step.id, approval).ok


@pytest.mark.parametrize("answer", [Answer.REJECT, None])
def test_a_moment_that_allows_it_takes_no_question_from_people(home: Path, answer: Answer | None) -> None:
    """A crash after the question was written has the policy asked again, when it says something else."""
    moments = [datetime(2026, 5, 4, 22, 0, 10, tzinfo=UTC)]
    rules = NIGHT.replace("DAY", "allow").replace("NIGHT", "ask")
    world = build(home, rules=rules, now=lambda: moments[-1])
    step, asked = world.asked()
    if answer is not None:
        world.journal.answer(asked.id, answer, by="bob", reason="no")
    moments.append(moments[0] - timedelta(seconds=20))
    assert world.changes.decide(step.id).decision is Verdict.ASK
    assert world.changes.ask(step.id).id == asked.id
    # Nor does it help to change what was kept of the policy's answer.
    kept = world.journal.steps.get(step.id).policy
    assert kept is not None
    world.journal.steps.update(step.id, policy=kept.model_copy(update={"decision": Verdict.ALLOW}))
    with pytest.raises(ApprovalError, match="was put to people: what they answer counts"):
        world.changes.apply(step.id)
    assert world.effect(step) is EffectState.NONE


def test_a_yes_is_worth_what_was_asked_for_and_not_what_is_asked_for_by_now(home: Path) -> None:
    moments = [datetime(2026, 5, 4, 21, 59, 50, tzinfo=UTC)]
    rules = NIGHT.replace("DAY", "ask").replace("NIGHT", "ask")
    world = build(home, rules=rules, now=lambda: moments[-1])
    step, _ = world.asked()
    moments.append(moments[0] + timedelta(seconds=20))
    assert world.changes.decide(step.id).tier == 1
    yes = world.journal.answer(world.changes.ask(step.id).id, Answer.APPROVE, by="bob")
    kept = world.journal.steps.get(step.id).policy
    assert kept is not None
    world.journal.steps.update(step.id, policy=kept.model_copy(update={"tier": 2}))
    with pytest.raises(DriftError, match="asks for an approval of tier 2 by now"):
        world.changes.apply(step.id, yes.id)
    assert world.effect(step) is EffectState.NONE


def test_what_the_policy_says_at_another_moment_is_on_record_too(home: Path) -> None:
    moments = [datetime(2026, 5, 4, 21, 59, 50, tzinfo=UTC)]
    rules = NIGHT.replace("DAY", "allow").replace("NIGHT", "ask")
    world = build(home, rules=rules, now=lambda: moments[-1])
    step = world.propose()
    world.changes.decide(step.id)
    world.changes.decide(step.id)
    moments.append(moments[0] + timedelta(seconds=20))
    world.changes.decide(step.id)
    said = [(event.decision, event.tier) for event in world.events(PolicyDecided)]
    assert said == [("allow", 1), ("ask", 2)]


def test_a_yes_that_nobody_used_lapses(home: Path) -> None:
    world = build(home)
    step, approval = world.approved()
    later = build(home, now=lambda: utc_now() + timedelta(hours=1))
    with pytest.raises(ApprovalError, match="not used before"):
        later.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.NONE


def test_a_change_is_taken_back_and_taking_back_is_safe_to_repeat(world: World) -> None:
    step, approval = world.approved()
    world.changes.apply(step.id, approval.id)
    for _ in range(3):
        outcome = world.changes.rollback(step.id)
        assert outcome is not None
        assert outcome.detail == "the switch is off again"
    assert world.times(f"undo-{step.id}") == 1
    assert (world.effect(step), world.status(step)) == (EffectState.ROLLED_BACK, StepStatus.ROLLED_BACK)
    assert len(world.events(RolledBack)) == 1
    # What was taken back is not done again under the same step.
    assert world.changes.apply(step.id, approval.id).state is EffectState.ROLLED_BACK
    assert world.times(step.id) == 1


def test_what_was_not_done_needs_no_way_back(world: World) -> None:
    step, _ = world.approved()
    outcome = world.changes.rollback(step.id)
    assert outcome is not None
    assert outcome.detail == "nothing was done"
    assert set(world.lamp.changes()) == {"somebody"}


def test_what_cannot_be_undone_says_so(home: Path) -> None:
    world = build(home, fuse="blown")
    step, approval = world.approved("fuse.bridge")
    assert approval.tier == 2
    world.changes.apply(step.id, approval.id)
    assert world.changes.rollback(step.id) is None
    assert "no way back" in world.events(RolledBack)[0].detail
    assert world.effect(step) is EffectState.DONE


def test_a_change_that_fails_is_known_as_failed_and_can_be_taken_back(home: Path) -> None:
    world = build(home, jinx="yes")
    step, approval = world.approved()
    applied = world.changes.apply(step.id, approval.id)
    assert (applied.state, applied.ok, applied.detail) == (EffectState.FAILED, False, "the switch broke off")
    assert world.status(step) is StepStatus.FAILED
    assert world.changes.rollback(step.id) is not None


def test_what_an_action_refuses_before_it_did_anything_is_not_taken_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, approval = world.approved()
    tool = world.changes._site.registry.action(step.action)

    def refuses(*_: object) -> Outcome:
        world.lamp.put("switch", "on")  # somebody else was quicker
        raise DriftError("the switch was set since")

    monkeypatch.setattr(type(tool), "apply", refuses)
    with pytest.raises(DriftError, match="was set since"):
        world.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.NOT_DONE
    assert [event.ok for event in world.events(EffectDone)] == [False]
    # Asked for again it says the same, and there is nothing to take back.
    assert world.changes.apply(step.id).state is EffectState.NOT_DONE
    world.changes.rollback(step.id)
    assert world.lamp.parts()["switch"] == "on"


# -- after a crash between intent and outcome -------------------------------------------------------------


def intended(world: World) -> Step:
    """Leave a step as a crash would that came right after the intent was written."""
    step, approval = world.approved()
    world.journal.ledger.intend(
        incident_id=world.incident, step_id=step.id, digest=step.digest, approval_id=approval.id
    )
    return step


def test_the_probe_says_that_it_was_done(world: World) -> None:
    step = intended(world)
    house = Target(LocalHost("house"), INVENTORY.host("house"), world.home)
    world.lamp.change(house, step.id, "switch", "on")
    assert world.changes.apply(step.id).state is EffectState.DONE
    assert world.times(step.id) == 1
    assert [event.answer for event in world.events(EffectInDoubt)] == [ProbeAnswer.DONE]


def test_the_probe_says_that_it_was_not_done(world: World) -> None:
    step = intended(world)
    for _ in range(2):
        assert world.changes.apply(step.id).state is EffectState.NOT_DONE
    assert world.times(step.id) == 0
    assert [event.ok for event in world.events(EffectDone)] == [False]
    with pytest.raises(LedgerError, match="not done twice"):
        world.journal.ledger.intend(incident_id=world.incident, step_id=step.id, digest=step.digest)


@pytest.mark.parametrize("answer", [ProbeAnswer.DONE, ProbeAnswer.NOT_DONE])
def test_what_no_probe_can_tell_waits_for_a_person(home: Path, answer: ProbeAnswer) -> None:
    world = build(home, knows=False)
    step = intended(world)
    for _ in range(2):
        assert world.changes.apply(step.id).state is EffectState.INTENDED
    assert world.status(step) is StepStatus.IN_DOUBT
    with pytest.raises(LedgerError, match="in doubt"):
        world.changes.rollback(step.id)
    asked = world.changes.ask_in_doubt(step.id)
    assert (asked.kind, world.changes.ask_in_doubt(step.id).id) == (ApprovalKind.IN_DOUBT, asked.id)
    assert "A crash hid whether this was done" in asked.summary
    for said in (answer, answer, ProbeAnswer.DONE):  # the first word counts
        assert world.changes.settle(step.id, said, by="bob").state.value == answer.value
    effect = world.journal.ledger.list(world.incident)[0]
    assert effect.settled_by == "bob"
    assert [event.ok for event in world.events(EffectDone)] == [answer is ProbeAnswer.DONE]
    assert world.times(step.id) == 0


# -- the gate as a node of another graph ------------------------------------------------------------------


class Mine(GateState, total=False):
    """A state of a user's own that holds the gate's."""

    note: str


def graph_with_gate(world: World) -> Any:
    graph = StateGraph(Mine)
    graph.add_node("gate", build_gate(world.changes, world.journal))
    graph.add_node("note", lambda state: {"note": "may" if state["permitted"] else "may not"})
    graph.add_edge(START, "gate")
    graph.add_edge("gate", "note")
    graph.add_edge("note", END)
    return graph.compile(checkpointer=InMemorySaver())


def given(world: World, position: str = "on") -> Mine:
    return Mine(incident=world.incident, host="house", action="switch.set", arguments={"position": position})


CONFIG: Any = {"configurable": {"thread_id": "t"}}


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_a_gate_waits_for_people_and_only_their_answer_counts(world: World, answer: str) -> None:
    graph = graph_with_gate(world)
    state = graph.invoke(given(world), CONFIG)
    question = state["__interrupt__"][0].value["approval"]
    # Whoever goes on without an answer waits again, whatever they say.
    state = graph.invoke(Command(resume={"permitted": True}), CONFIG)
    assert state["__interrupt__"][0].value["approval"] == question
    world.journal.answer(question, Answer(answer), by="bob", reason="so")
    state = graph.invoke(Command(resume=question), CONFIG)
    assert (state["permitted"], state["reason"]) == (answer == "approve", f"{answer} by bob so")
    assert state["note"] == ("may" if answer == "approve" else "may not")
    assert len(world.journal.approvals.list()) == 1
    assert len(world.journal.steps.list(world.incident)) == 1
    if answer == "approve":
        assert world.changes.apply(state["step"], state["approval"]).ok


def test_a_gate_lets_pass_what_the_policy_allows(home: Path) -> None:
    world = build(home, rules=ALLOW)
    state = graph_with_gate(world).invoke(given(world), CONFIG)
    assert (state["permitted"], state["approval"], state["note"]) == (True, "", "may")
    assert world.changes.apply(state["step"]).ok


def test_a_gate_stops_what_the_policy_denies(home: Path) -> None:
    world = build(home, rules=DENY)
    state = graph_with_gate(world).invoke(given(world), CONFIG)
    assert (state["permitted"], state["reason"]) == (False, "frozen")


def test_a_gate_puts_nothing_to_people_that_would_change_nothing(world: World) -> None:
    state = graph_with_gate(world).invoke(given(world, "off"), CONFIG)
    assert (state["permitted"], state["reason"]) == (False, "it would change nothing")
    assert world.journal.approvals.list() == ()


def test_a_gate_plans_anew_once_a_change_is_one(world: World) -> None:
    graph = graph_with_gate(world)
    assert not graph.invoke(given(world, "off"), CONFIG)["permitted"]
    world.lamp.put("switch", "on")
    state = graph.invoke(given(world, "off"), {"configurable": {"thread_id": "later"}})
    question = world.journal.approvals.get(state["__interrupt__"][0].value["approval"])
    assert "+switch: off" in question.diff


def test_a_gate_asks_nobody_where_nobody_may_answer(home: Path) -> None:
    world = build(home, solo=True, fuse="blown")
    wanted = Mine(incident=world.incident, host="house", action="fuse.bridge", arguments={})
    state = graph_with_gate(world).invoke(wanted, CONFIG)
    assert not state["permitted"]
    assert "tier 2), and one person alone" in state["reason"]


def test_a_gate_asks_nobody_alone_where_two_must_say_yes(home: Path) -> None:
    rules = (
        "{version: 1, rules: [{name: two, match: {tools: ['*']}, decision: ask, tier: 1, quorum: 2, "
        "reason: dear}]}"
    )
    world = build(home, rules=rules, solo=True)
    state = graph_with_gate(world).invoke(given(world), CONFIG)
    assert not state["permitted"]
    assert "one person alone" in state["reason"]
    assert world.journal.approvals.list() == ()


def test_a_gate_that_is_passed_twice_plans_twice(world: World) -> None:
    graph = graph_with_gate(world)
    for n, position in enumerate(["on", "off", "on"]):
        config: Any = {"configurable": {"thread_id": str(n)}}
        state = graph.invoke(given(world, position), config)
        question = state["__interrupt__"][0].value["approval"]
        world.journal.answer(question, Answer.APPROVE, by="bob")
        state = graph.invoke(Command(resume=question), config)
        assert world.changes.apply(state["step"], state["approval"]).ok
        assert world.lamp.parts()["switch"] == position
    assert len({step.id for step in world.journal.steps.list(world.incident)}) == 3


def test_an_effect_adds_two_transactions_that_write(world: World) -> None:
    step, approval = world.approved()
    begun: list[str] = []

    def keep(*given: Any) -> None:
        locks = ("BEGIN IMMEDIATE", "SELECT pg_advisory_xact_lock")
        begun.extend(text for text in given if isinstance(text, str) and text.startswith(locks))

    event.listen(Engine, "before_cursor_execute", keep)
    try:
        assert world.changes.apply(step.id, approval.id).ok
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
    assert len(begun) == 2


def test_what_came_of_an_effect_is_kept_even_if_it_cannot_be_audited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, approval = world.approved()
    append = AuditLog.append

    def full(self: AuditLog, kind: str, data: Any) -> Any:
        if kind == "effect-done":
            raise AuditError("the disk of the audit log is full")
        return append(self, kind, data)

    monkeypatch.setattr(AuditLog, "append", full)
    with pytest.raises(AuditError, match="is full"):
        world.changes.apply(step.id, approval.id)
    assert world.effect(step) is EffectState.DONE
    assert not world.events(EffectDone)
    monkeypatch.undo()
    assert world.changes.apply(step.id, approval.id).ok
    assert (world.times(step.id), len(world.events(EffectDone))) == (1, 1)


def test_an_intent_that_cannot_be_audited_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    step, approval = world.approved()

    def full(self: AuditLog, kind: str, data: Any) -> Any:
        raise AuditError("the disk of the audit log is full")

    monkeypatch.setattr(AuditLog, "append", full)
    with pytest.raises(AuditError, match="is full"):
        world.changes.apply(step.id, approval.id)
    assert (world.effect(step), world.times(step.id)) == (EffectState.NONE, 0)
    assert world.journal.approvals.get(approval.id).status is ApprovalStatus.APPROVED
