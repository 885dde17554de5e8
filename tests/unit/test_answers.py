"""Each answer of a person has its own consequence, in the incident graph and in the gate."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lamp import ALERT, SURGE, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator
from watchkeeper.models.scripted import ScriptedEngine
from watchkeeper.runtime.approvals import Approval, ApprovalStatus
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.events import ApprovalRequested
from watchkeeper.runtime.report import Report
from watchkeeper.tools.errors import ArgumentError

Answering = Callable[[Orchestrator, Approval], None]


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def handle(o: Orchestrator, answering: Answering) -> Report:
    incident = o.open(ALERT)
    for event in o.resume(incident.id):
        if isinstance(event, ApprovalRequested):
            asked = o.journal.approvals.get(event.approval_id)
            if asked.status is ApprovalStatus.PENDING:
                answering(o, asked)
    return o.report(incident.id)


def sets_it_off() -> ScriptedEngine:
    """An engine that finds the cause, and sets the switch the wrong way."""
    return prefers("switch", generate={"switch.set": {"position": "off"}})


def test_an_edit_is_planned_and_asked_anew_and_the_old_question_allows_nothing(
    tmp_path: Path, home: Path
) -> None:
    lamp = Lamp.dark(tmp_path, switch="dim")

    def edit_then_approve(o: Orchestrator, asked: Approval) -> None:
        if asked.requester == "ann":
            o.answer(asked.id, "edit", by="bob", arguments={"position": "on"}, reason="on, not off")
            return
        with pytest.raises(ApprovalError, match="the edit of 'bob' of what 'ann' asked for"):
            o.answer(asked.id, "approve", by="bob")
        o.answer(asked.id, "approve", by="cat")

    with orchestrator(home, lamp, sets_it_off()) as o:
        report = handle(o, edit_then_approve)
        old, new = report.approvals
        with pytest.raises(ApprovalError, match="was answered edit by 'bob' before"):
            o.journal.approvals.use(old.id, old.digest)
        entries = [e.data for e in o.journal.audit.entries() if e.kind == "approval-answered"]
    assert (report.outcome, lamp.shines()) == ("resolved", True)
    assert [(s.arguments, s.status.value, s.requester) for s in report.steps] == [
        ({"position": "off"}, "refused", ""),
        ({"position": "on"}, "verified", "bob"),
    ]
    assert (old.status, old.edited) == (ApprovalStatus.ANSWERED, {"position": "on"})
    assert old.digest != new.digest
    assert [entry["answer"] for entry in entries if isinstance(entry, dict)] == ["edit", "approve"]


def test_an_edit_that_cannot_be_done_leaves_the_question_open(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="dim")

    def try_then_reject(o: Orchestrator, asked: Approval) -> None:
        with pytest.raises(ArgumentError, match="position"):
            o.answer(asked.id, "edit", by="bob", arguments={"position": "sideways"})
        with pytest.raises(ApprovalError, match="has these arguments already"):
            o.answer(asked.id, "edit", by="bob", arguments={"position": "off"})
        with pytest.raises(ApprovalError, match="needs the new arguments"):
            o.answer(asked.id, "edit", by="bob")
        with pytest.raises(ApprovalError, match="takes no arguments"):
            o.answer(asked.id, "approve", by="bob", arguments={"position": "on"})
        assert o.journal.approvals.get(asked.id).status is ApprovalStatus.PENDING
        o.answer(asked.id, "reject", by="bob", reason="neither")

    with orchestrator(home, lamp, sets_it_off()) as o:
        report = handle(o, try_then_reject)
    assert report.outcome == "escalated"
    assert len(report.steps) == 1


def test_an_edit_that_the_policy_denies_is_refused(tmp_path: Path, home: Path) -> None:
    rules = """
version: 1
rules:
  - {name: all, match: {tools: ["*"]}, decision: ask, reason: look first}
  - {name: hot, match: {tools: ["switch.*"]}, when: 'arguments.position == "on"', decision: deny,
     reason: it is hot}
"""
    lamp = Lamp.dark(tmp_path, switch="dim")

    def edit(o: Orchestrator, asked: Approval) -> None:
        with pytest.raises(ApprovalError, match="denied with these arguments: it is hot"):
            o.answer(asked.id, "edit", by="bob", arguments={"position": "on"})
        o.answer(asked.id, "reject", by="bob", reason="-")

    with orchestrator(home, lamp, sets_it_off(), rules=rules) as o:
        assert handle(o, edit).outcome == "escalated"


def test_a_response_is_told_to_the_agents_and_the_next_cause_has_its_turn(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    engine = prefers("bulb")

    def answering(o: Orchestrator, asked: Approval) -> None:
        if "bulb" in asked.summary:
            with pytest.raises(ApprovalError, match="needs words"):
                o.answer(asked.id, "respond", by="bob")
            o.answer(asked.id, "respond", by="bob", reason="the bulb is fine\x1b[31m, look at\nthe switch")
        else:
            o.answer(asked.id, "approve", by="bob")

    with orchestrator(home, lamp, engine) as o:
        report = handle(o, answering)
    prompts = ["\n".join(message.content for message in request.messages) for request in engine.requests]
    assert (report.outcome, lamp.parts()["bulb"]) == ("resolved", "dusty")
    assert [(s.action, s.status.value) for s in report.steps] == [
        ("bulb.replace", "refused"),
        ("switch.set", "verified"),
    ]
    said = [p for p in prompts if "A person in charge said: the bulb is fine" in p]
    assert said
    assert all("\x1b" not in p and "look at the switch" in p for p in said)


def test_escalating_hands_over_with_the_reason_and_nothing_was_changed(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    before = lamp.log.read_text()
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o, lambda o, a: _say(o, a, "escalate", "ask the electrician"))
    assert (report.outcome, lamp.log.read_text()) == ("escalated", before)
    assert report.reason == "bob handed it over: ask the electrician"


def test_terminating_takes_back_what_was_applied_and_closes(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    before = lamp.parts()

    def answering(o: Orchestrator, asked: Approval) -> None:
        if "bulb" in asked.summary:
            o.answer(asked.id, "approve", by="bob")
        else:
            o.answer(asked.id, "terminate", by="bob", reason="the house is sold")

    with orchestrator(home, lamp, prefers("bulb")) as o:
        report = handle(o, answering)
    assert (report.outcome, lamp.parts()) == ("closed", before)
    assert [a.answer for a in report.approvals][-1] == "terminate"


def test_alone_ones_own_edit_is_self_approved_and_another_persons_is_not(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="dim")

    def answering(o: Orchestrator, asked: Approval) -> None:
        if asked.edited is None and asked.requester == "ann" and len(steps(o, asked)) == 1:
            o.answer(asked.id, "edit", by="ann", arguments={"position": "on"})
        else:
            o.answer(asked.id, "approve", by="ann")

    with orchestrator(home, lamp, sets_it_off(), solo=True) as o:
        report = handle(o, answering)
    assert report.outcome == "resolved"
    assert [(a.requester, a.self_approved) for a in report.approvals] == [("ann", False), ("ann", True)]


def test_who_edits_is_none_of_the_people_who_must_say_yes_and_is_told_why(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="dim")
    refused: list[str] = []

    def answering(o: Orchestrator, asked: Approval) -> None:
        if len(steps(o, asked)) == 1:
            o.answer(asked.id, "edit", by="bob", arguments={"position": "on"})
            return
        assert asked.quorum == 2
        with pytest.raises(ApprovalError) as error:
            o.answer(asked.id, "approve", by="bob")
        refused.append(str(error.value))
        o.answer(asked.id, "approve", by="cat")
        with pytest.raises(ApprovalError, match="'ann'"):
            o.answer(asked.id, "approve", by="ann")
        o.answer(asked.id, "approve", by="eve")

    rules = "version: 1\nrules:\n  - {name: pairs, decision: ask, tier: 3}\n"
    with orchestrator(home, lamp, sets_it_off(), rules=rules) as o:
        report = handle(o, answering)
    assert report.outcome == "resolved"
    assert [vote.by for vote in report.approvals[-1].votes] == ["cat", "eve"]
    assert "is the edit of 'bob' of what 'ann' asked for" in refused[0]
    assert "their own yes does not count: 2 other people must approve it" in refused[0]


def test_who_edits_asks_for_what_follows_from_that_too(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="dim", bulb="broken", fuse="blown")
    asked_for: list[tuple[str, str]] = []

    def answering(o: Orchestrator, asked: Approval) -> None:
        asked_for.append((o.journal.steps.get(asked.step_id).action, asked.requester))
        if len(asked_for) == 1:
            o.answer(asked.id, "edit", by="bob", arguments={"position": "on"})
            return
        with pytest.raises(ApprovalError, match="'bob'"):
            o.answer(asked.id, "approve", by="bob")
        o.answer(asked.id, "approve", by="cat")

    engine = prefers("surge", generate={"switch.set": {"position": "off"}})
    with orchestrator(home, lamp, engine, causes=SURGE) as o:
        handle(o, answering)
    assert asked_for == [
        ("switch.set", "ann"),
        ("switch.set", "bob"),
        ("bulb.replace", "bob"),
        ("fuse.replace", "bob"),
    ]


def steps(o: Orchestrator, asked: Approval) -> list[str]:
    return [step.id for step in o.journal.steps.list(asked.incident_id)]


def _say(o: Orchestrator, asked: Approval, answer: str, reason: str) -> None:
    o.answer(asked.id, answer, by="bob", reason=reason)
