"""A spent budget or a broken plan ends with the truth: what was found, spent, and left undone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.lamp import ALERT, ALLOW, SURGE, Lamp, folder_in_memory, orchestrator, prefers
from tests.unit.test_incident_graph import Answering, events_of, handle, steps, yes
from watchkeeper import Orchestrator
from watchkeeper.agents.causes import FollowUp
from watchkeeper.runtime.approvals import Approval, ApprovalStatus
from watchkeeper.runtime.budgets import exhausted
from watchkeeper.runtime.context import Context
from watchkeeper.runtime.errors import LimitError
from watchkeeper.runtime.events import Escalated, EvidenceGathered, RolledBack
from watchkeeper.runtime.incidents import Incidents
from watchkeeper.runtime.ledger import Ledger
from watchkeeper.runtime.limits import Limits, RepeatLimits
from watchkeeper.runtime.policy_types import Verdict
from watchkeeper.runtime.report import Report

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def handed_over(report: Report) -> Escalated:
    (last,) = events_of(report, Escalated)
    assert isinstance(last, Escalated)
    assert last.spent is not None
    return last


# -- budgets -----------------------------------------------------------------------------------------------


def test_tokens_that_are_spent_end_it_between_two_steps(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    with orchestrator(home, lamp, prefers("switch"), max_tokens=1) as o:
        report = handle(o)
        text = (home / "reports" / f"{report.incident.id}.md").read_text()
    last = handed_over(report)
    assert last.spent is not None
    assert (report.outcome, report.steps) == ("escalated", ())
    assert report.reason == f"the budget of 1 tokens is spent ({last.spent.tokens})"
    assert last.spent.tokens > last.spent.max_tokens == 1
    assert "The lamp is dark. [E1]" in last.found
    assert any(line.startswith("not read: ") for line in last.left)
    for part in ("## Handed over", "Found: The lamp is dark.", "Left undone: ", "of 1 tokens"):
        assert part in text


def test_actions_that_are_spent_leave_the_causes_that_were_not_tried(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    with orchestrator(home, lamp, prefers("bulb"), rules=ALLOW, max_actions=1) as o:
        report = handle(o)
    last = handed_over(report)
    assert last.spent is not None
    assert steps(report) == [("bulb.replace", "rolled-back")]
    assert "the budget of 1 actions is spent, so switch.set was not tried" in report.reason
    assert "not tried: the switch was turned off" in last.left
    assert (last.spent.actions, last.spent.max_actions) == (1, 1)
    assert lamp.parts()["bulb"] == "dusty"


def test_a_plan_that_the_actions_left_do_not_suffice_for_is_not_begun(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="broken", fuse="blown")
    with orchestrator(home, lamp, prefers("surge"), rules=ALLOW, causes=SURGE, max_actions=2) as o:
        report = handle(o)
    assert report.reason == "switch.set takes 3 actions and the budget of 2 leaves 2"
    assert set(lamp.changes()) == {"somebody"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_actions": 2}, "switch.set takes 3 actions and the budget of 2 leaves 2"),
        ({"limits": Limits(actions_per_host=2)}, "switch.set was not tried: rate limit: 2 actions on house"),
    ],
)
def test_an_edit_that_takes_more_actions_than_are_left_is_not_begun(
    tmp_path: Path, home: Path, settings: dict[str, Any], said: str
) -> None:
    def after(_: object, arguments: dict[str, Any]) -> tuple[FollowUp, ...]:
        on = arguments["position"] == "on"
        return (FollowUp("bulb.replace", {}), FollowUp("fuse.replace", {})) if on else ()

    def edit(o: Orchestrator, asked: Approval) -> None:
        o.answer(asked.id, "edit", by="bob", arguments={"position": "on"})

    causes = (replace(SURGE[0], follow_up=(("switch.set", after),)),)
    engine = prefers("surge", generate={"switch.set": {"position": "off"}})
    lamp = Lamp.dark(tmp_path, switch="dim", bulb="broken", fuse="blown")
    with orchestrator(home, lamp, engine, causes=causes, **settings) as o:
        report = handle(o, edit)
    assert report.outcome == "escalated"
    assert report.reason.startswith(said)
    assert steps(report) == [("switch.set", "refused")]
    assert set(lamp.changes()) == {"somebody"}


@pytest.mark.parametrize("rules", [None, ALLOW])
def test_whoever_asks_for_an_effect_the_budget_of_actions_holds(
    tmp_path: Path, home: Path, rules: str | None
) -> None:
    def proposed(o: Orchestrator, action: str, **arguments: str) -> str:
        step = o.changes.propose(incident, host="house", action=action, arguments=arguments, key=action)
        if o.changes.decide(step.id).decision is Verdict.ASK:
            o.answer(o.changes.ask(step.id).id, "approve", by="bob")
        return step.id

    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    with orchestrator(home, lamp, prefers(), rules=rules, max_actions=1) as o:
        incident = o.open(ALERT).id
        first, second = proposed(o, "switch.set", position="on"), proposed(o, "bulb.replace")
        assert o.changes.refusal(second) == ""
        assert o.apply(first).ok
        o.changes.rollback(first)  # which gives nothing back
        assert o.changes.refusal(second) == "the budget of 1 actions is spent"
        with pytest.raises(LimitError, match=f"step '{second}': the budget of 1 actions is spent"):
            o.apply(second)
        asked = o.journal.approvals.list(status=ApprovalStatus.APPROVED)
        assert [approval.step_id for approval in asked] == ([] if rules else [second])
        assert lamp.parts()["bulb"] == "dusty"
        assert (
            o.gate().invoke(
                {"incident": incident, "host": "house", "action": "bulb.replace", "arguments": {}}
            )["reason"]
            == "the budget of 1 actions is spent"
        )


@pytest.mark.parametrize("most", [1, 2, 3])
def test_facts_that_are_spent_say_how_many_were_not_read(tmp_path: Path, home: Path, most: int) -> None:
    lamp = Lamp.dark(tmp_path, power="cut")
    with orchestrator(home, lamp, prefers(), max_facts=most) as o:
        report = handle(o)
    last = handed_over(report)
    assert last.spent is not None
    assert last.spent.facts == most
    assert len([e for e in events_of(report, EvidenceGathered) if e.fact != "reading"]) == most
    assert f"the budget of {most} facts is spent, and " in report.reason


def seconds_of(moment: datetime) -> float:
    return moment.timestamp()


def test_seconds_do_not_count_waiting_and_survive_a_restart(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    clock = [START]

    def slow(answers: Answering) -> Answering:
        def answering(o: Orchestrator, asked: Approval) -> None:
            clock[0] += timedelta(minutes=30)  # people think for long
            answers(o, asked)

        return answering

    def opened(**settings: Any) -> Orchestrator:
        o = orchestrator(home, lamp, prefers("bulb"), **settings)
        o.journal.incidents._now = lambda: clock[0]
        o.journal.incidents._seconds = lambda: seconds_of(clock[0])
        # Every event takes a second.
        o.journal.listen(lambda _: clock.append(clock.pop() + timedelta(seconds=1)))
        return o

    with opened(max_seconds=60) as o:
        incident = o.open(ALERT)
        for number, _ in enumerate(o.resume(incident.id)):
            if number == 8:
                break
        before = o.journal.incidents.worked(incident.id)
    assert 4 < before < 20
    clock[0] += timedelta(hours=3)  # nobody runs it
    with opened(max_seconds=600) as o:
        report = handle(o, slow(yes))
        worked = o.journal.incidents.get(incident.id).worked_seconds
    assert report.outcome == "resolved"
    assert report.cost.seconds > 3 * 3600
    assert before < worked < 120


def test_seconds_that_are_spent_end_it_and_never_within_an_effect(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    clock = [START]
    with orchestrator(home, lamp, prefers("bulb"), rules=ALLOW, max_seconds=100) as o:
        o.journal.incidents._now = lambda: clock[0]
        o.journal.incidents._seconds = lambda: seconds_of(clock[0])

        def passing(event: Any) -> None:
            if event.kind == "effect-intended":
                clock[0] += timedelta(seconds=101)

        o.journal.listen(passing)
        report = handle(o)
    # What was begun was ended, looked at, and taken back; then nothing new was begun.
    assert steps(report) == [("bulb.replace", "rolled-back")]
    assert report.reason == "the budget of 100 s of work is spent (101 s)"
    assert "not tried: the switch was turned off" in handed_over(report).left


def test_a_clock_that_is_set_back_takes_no_work_away(home: Path) -> None:
    from watchkeeper.runtime.journal import Journal

    with Journal(home) as journal:
        clock = [START]
        incidents = Incidents(journal.store, now=lambda: clock[0])
        incident = incidents.open(ALERT)
        with incidents.working(incident.id):
            clock[0] += timedelta(seconds=5)
            incidents.open(ALERT)
            clock[0] -= timedelta(hours=1)
            incidents.open(ALERT)
            assert incidents.worked(incident.id) == 5
        assert incidents.get(incident.id).worked_seconds == 5


def test_a_fact_that_is_read_again_and_again_ends_the_investigation(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    limits = Limits(repeats=RepeatLimits(readings=2))
    with orchestrator(home, lamp, prefers("switch"), limits=limits) as o:
        incident = o.open(ALERT)
        context = Context(o.site, o._team, o.journal, o.settings)
        for number in range(3):
            assert exhausted(context, {"incident": incident.id}) == ""
            o.journal.incidents.add_evidence(
                incident.id,
                f"again:{number}",
                lambda id: o.site.registry.gather(  # noqa: A006
                    "lamp.light", o.site.target("house"), {}, id=id, now=o.journal.now
                ),
            )
        assert "loop: lamp.light was read 3 times" in exhausted(context, {"incident": incident.id})
        report = handle(o)
    assert (report.outcome, steps(report)) == ("escalated", [])
    assert report.reason.startswith("loop: lamp.light was read")


# -- compensation ------------------------------------------------------------------------------------------

BROKEN = {"switch": "off", "bulb": "broken", "fuse": "blown"}


def written(lamp: Lamp) -> list[str]:
    """What was done to the lamp, in its order, by the number of the step."""
    lines = [line.split() for line in lamp.log.read_text().splitlines()]
    return [f"{who.partition('INC-')[0]}{who[-2:]} {value}" for who, _, value in lines if who != "somebody"]


def test_three_actions_mend_together(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, **BROKEN)
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE) as o:
        report = handle(o)
    assert (report.outcome, written(lamp)) == ("resolved", ["S1 on", "S2 new", "S3 whole"])


def test_where_the_third_fails_the_first_two_are_taken_back_in_reverse(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, **BROKEN, jinx="fuse")
    before = lamp.parts()
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE) as o:
        report = handle(o)
    assert report.outcome == "escalated"
    assert written(lamp) == [
        "S1 on",
        "S2 new",
        "S3 cracked",
        "undo-S3 blown",
        "undo-S2 broken",
        "undo-S1 off",
    ]
    assert lamp.parts() == before
    assert "it failed: the fuse broke off; all of it was taken back" in report.reason
    assert not [line for line in handed_over(report).left if "taken back" in line]


def test_what_cannot_be_taken_back_is_named_and_the_rest_is_taken_back(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, **BROKEN, jinx="fuse", glued="bulb")
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE) as o:
        report = handle(o)
    assert written(lamp) == ["S1 on", "S2 new", "S3 cracked", "undo-S3 blown", "undo-S1 off"]
    assert "this could not be taken back: bulb.replace" in report.reason
    (left,) = [line for line in handed_over(report).left if "taken back" in line]
    assert left.startswith(f"could not be taken back: {report.steps[1].id} bulb.replace on house")
    assert left.endswith("the bulb is glued in")
    assert [event.ok for event in events_of(report, RolledBack)] == [True, False, True]


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("when", ["intend_rollback", "complete_rollback"])
def test_a_rollback_that_was_cut_off_goes_on(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, at: int, when: str
) -> None:
    lamp = Lamp.dark(tmp_path, **BROKEN, jinx="fuse")
    before, calls = lamp.parts(), []
    whole = getattr(Ledger, when)

    def cut(ledger: Ledger, key: str, **values: Any) -> Any:
        calls.append(key)
        if len(calls) == at:
            raise RuntimeError("cut off")
        return whole(ledger, key, **values)

    monkeypatch.setattr(Ledger, when, cut)
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE) as o, pytest.raises(RuntimeError):
        handle(o)
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE) as o:
        report = handle(o)
    assert lamp.parts() == before
    assert steps(report) == [(step.action, "rolled-back") for step in report.steps]
    assert written(lamp)[3:] == ["undo-S3 blown", "undo-S2 broken", "undo-S1 off"]


def test_a_plan_that_a_limit_stops_half_way_is_taken_back(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lamp = Lamp.dark(tmp_path, **BROKEN)
    before = lamp.parts()
    limits = Limits(actions_per_host=2)
    # Room was there when the plan was made, and others used it up meanwhile.
    monkeypatch.setattr("watchkeeper.runtime.changes.Changes.no_room", lambda *_: "")
    with orchestrator(home, lamp, prefers("surge"), causes=SURGE, rules=ALLOW, limits=limits) as o:
        report = handle(o)
    assert (report.outcome, lamp.parts()) == ("escalated", before)
    assert report.reason.startswith("rate limit: 2 actions on house")
    assert steps(report) == [
        ("switch.set", "rolled-back"),
        ("bulb.replace", "rolled-back"),
        ("fuse.replace", "refused"),
    ]
