"""Where Watchkeeper only observes, nothing is applied on any path, and reports say what would have been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from typer.testing import CliRunner

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator, Settings
from watchkeeper.cli import build_app
from watchkeeper.runtime.errors import ObserveOnlyError
from watchkeeper.runtime.events import ApprovalRequested, EscalationStarted, LevelReached, WouldHaveDone
from watchkeeper.runtime.handing_over import hand_over
from watchkeeper.runtime.ledger import EffectState, effect_key
from watchkeeper.runtime.notify import NOTIFICATIONS
from watchkeeper.runtime.observing import who_is_asked
from watchkeeper.runtime.policy_types import PolicyDecision, Verdict
from watchkeeper.runtime.report import Report
from watchkeeper.runtime.report_markdown import render_markdown
from watchkeeper.runtime.runs import RunFile
from watchkeeper.runtime.settings import load_settings
from watchkeeper.runtime.steps import Step
from watchkeeper.tools.action import Outcome


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


@pytest.fixture
def lamp(tmp_path: Path) -> Lamp:
    return Lamp.dark(tmp_path, switch="off", bulb="dusty")


def run_through(o: Orchestrator, incident_id: str, *, wait: bool = True) -> Report:
    for _ in o.resume(incident_id, wait=wait):
        pass
    return o.report(incident_id)


def untouched(lamp: Lamp) -> bool:
    return set(lamp.changes()) == {"somebody"}


def proposed(o: Orchestrator) -> Step:
    incident = o.open(ALERT).id
    step = o.changes.propose(
        incident, host="house", action="switch.set", arguments={"position": "on"}, key="mine"
    )
    o.changes.decide(step.id)
    return o.journal.steps.get(step.id)


def test_what_would_have_been_asked_for_is_told_and_not_done(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
        assert o.journal.ledger.list(report.incident.id) == ()
        assert list(o.journal.approvals.list()) == []
    assert untouched(lamp)
    assert report.outcome == "escalated"
    assert [(step.action, step.status.value) for step in report.steps] == [("switch.set", "observed")]
    (said,) = report.would_have_done
    assert (said.action, said.decision, said.tier) == ("switch.set", "ask", 1)
    assert said.diff == "-switch: off\n+switch: on"
    assert said.asked == "a person other than 'ann' would have been asked (tier 1)"
    assert "only observed" in report.reason
    assert not any(isinstance(event, ApprovalRequested) for event in report.timeline)
    assert any(isinstance(event, WouldHaveDone) for event in report.timeline)


def test_the_report_s_files_say_so(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
    text = (home / "reports" / f"{report.incident.id}.md").read_text()
    # Who is called about it afterwards is in no file.
    assert set(text.splitlines()) <= set(render_markdown(report).splitlines())
    assert "## What would have been done" in text
    assert "Policy: ask, rule" in text
    assert "+switch: on" in text
    kept = json.loads((home / "reports" / f"{report.incident.id}.json").read_text())
    assert kept["would_have_done"][0]["arguments"] == {"position": "on"}


def test_what_the_policy_allows_by_itself_is_not_done_either(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
    assert untouched(lamp)
    assert report.would_have_done[0].decision == "allow"
    assert "nobody would have been asked" in report.would_have_done[0].asked


@pytest.mark.parametrize(
    ("solo", "said"),
    [
        (True, "tier 2 needs another person"),
        (False, "a person other than 'ann' would have been asked (tier 2)"),
    ],
)
def test_who_would_have_been_asked_depends_on_the_tier_and_on_who_is_there(
    tmp_path: Path, home: Path, solo: bool, said: str
) -> None:
    lamp = Lamp.dark(tmp_path, fuse="blown")
    with orchestrator(home, lamp, prefers("fuse"), solo=solo, observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
    assert said in report.would_have_done[0].asked
    assert untouched(lamp)


@pytest.mark.parametrize(
    ("quorum", "solo", "said"),
    [
        (2, False, "two people other than 'ann' would have been asked (tier 2)"),
        (3, False, "3 people other than 'ann' would have been asked (tier 2)"),
        (2, True, "nobody could have been asked: tier 2 needs 2 other people than 'ann'"),
    ],
)
def test_as_many_are_told_as_would_be_asked(quorum: int, solo: bool, said: str) -> None:
    asked = PolicyDecision(
        decision=Verdict.ASK, rule="r", reason="", tier=2, quorum=quorum, policy_digest="0" * 64
    )
    assert who_is_asked(asked, requester="ann", solo=solo) == said


def test_what_the_policy_denies_is_refused_as_ever(home: Path, lamp: Lamp) -> None:
    deny = "version: 1\nrules:\n  - {name: never, match: {tools: ['*']}, decision: deny, reason: never}\n"
    with orchestrator(home, lamp, prefers("switch"), rules=deny, observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
    assert report.would_have_done == ()
    assert untouched(lamp)


def test_no_call_applies_or_asks(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, observe_only=True) as o:
        step = proposed(o)
        with pytest.raises(ObserveOnlyError, match="is not applied"):
            o.apply(step.id)
        with pytest.raises(ObserveOnlyError, match="is not applied"):
            o.changes.apply(step.id)
        for ask in (o.changes.ask, o.changes.ask_in_doubt):
            with pytest.raises(ObserveOnlyError, match="is put to nobody"):
                ask(step.id)
        # Whoever goes round `Changes` gets no intent, without which nothing is done.
        with pytest.raises(ObserveOnlyError, match="may not begin"):
            o.journal.ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest)
        assert o.journal.ledger.find(effect_key(step.id, step.digest)) is None
    assert untouched(lamp)


def test_the_gate_permits_nothing(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), observe_only=True) as o:
        given = {
            "incident": o.open(ALERT).id,
            "host": "house",
            "action": "switch.set",
            "arguments": {"position": "on"},
        }
        gate = o.gate()
        gate.checkpointer = InMemorySaver()
        end = gate.invoke(given, {"configurable": {"thread_id": "one"}})
        assert end["permitted"] is False
        assert end["reason"].startswith("only observed: a person other than 'ann'")
        assert end["approval"] == ""
        assert list(o.journal.approvals.list()) == []


def test_a_step_that_was_approved_before_is_not_applied_by_a_resumed_run(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch")) as o:
        incident = o.open(ALERT).id
        run_through(o, incident, wait=False)
        (asked,) = o.journal.approvals.list()
        o.answer(asked.id, "approve", by="bob")
    with orchestrator(home, lamp, prefers("switch"), observe_only=True) as o:
        report = run_through(o, incident)
        assert o.journal.approvals.get(asked.id).used_at is None
        assert o.journal.ledger.list(incident) == ()
    assert untouched(lamp)
    assert report.outcome == "escalated"
    assert [event.action for event in report.would_have_done] == ["switch.set"]


def test_what_was_applied_before_is_not_taken_back(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, bulb="dusty", switch="off")
    with orchestrator(home, lamp, prefers("bulb"), rules=ALLOW) as o:
        incident = o.open(ALERT).id
        for event in o.resume(incident):
            if event.kind == "effect-done":
                break
    assert lamp.parts()["bulb"] == "new"
    with orchestrator(home, lamp, prefers("bulb"), rules=ALLOW, observe_only=True) as o:
        report = run_through(o, incident)
        effect = o.journal.ledger.list(incident)[0]
        assert effect.state is EffectState.DONE
        with pytest.raises(ObserveOnlyError, match="is not taken back"):
            o.changes.rollback(report.steps[0].id)
        with pytest.raises(ObserveOnlyError, match="may not begin"):
            o.journal.ledger.intend_rollback(effect.key)
    assert lamp.parts()["bulb"] == "new"
    assert report.outcome == "escalated"
    assert "it was not taken back: make the bulb new" in report.reason


@pytest.mark.parametrize("knows", [True, False])
def test_an_effect_in_doubt_is_looked_at_and_nobody_is_asked(home: Path, lamp: Lamp, knows: bool) -> None:
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, knows=knows) as o:
        step = proposed(o)
        o.journal.ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest)
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, knows=knows, observe_only=True) as o:
        known = o.changes.apply(step.id).state
        assert known is (EffectState.NOT_DONE if knows else EffectState.INTENDED)
    assert untouched(lamp)


def test_an_unobserved_run_acts(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        report = run_through(o, o.open(ALERT).id)
        assert o.journal.ledger.complete  # the same machinery
    assert report.outcome == "resolved"
    assert report.would_have_done == ()


def test_a_run_that_is_resumed_never_acts_more_freely_than_it_began_or_than_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHKEEPER_HOME", str(tmp_path))
    (tmp_path / "config.yaml").write_text("observe_only: true\n")
    acting = RunFile.of(Settings(home=tmp_path))
    assert load_settings(**acting.options()).observe_only is True
    (tmp_path / "config.yaml").write_text("observe_only: false\n")
    assert load_settings(**RunFile.of(Settings(home=tmp_path, observe_only=True)).options()).observe_only
    acting.write(tmp_path, "INC-OLD")
    path = tmp_path / "runs" / "INC-OLD.json"
    before = json.loads(path.read_text())
    del before["observe_only"]
    path.write_text(json.dumps(before))
    kept = RunFile.read(tmp_path, "INC-OLD")
    assert kept is not None
    assert kept.observe_only is False


def test_outcomes_are_kept_where_only_new_effects_are_refused(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW) as o:
        step = proposed(o)
        effect = o.journal.ledger.intend(incident_id=step.incident_id, step_id=step.id, digest=step.digest)
    with orchestrator(home, lamp, prefers("switch"), rules=ALLOW, observe_only=True) as o:
        assert o.journal.ledger.complete(effect.key, ok=True, outcome=Outcome(detail="x")).state is (
            EffectState.DONE
        )


PAGED = """version: 1
people: {bob: {channels: [file]}, eve: {channels: [file]}}
policies: {p: {levels: [{who: {users: [bob]}, wait: 5m}, {who: {users: [eve]}}]}}
default: p
"""


def test_nobody_is_called_and_the_report_says_who_would_have_been(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED, observe_only=True) as o:
        report = run_through(o, o.open(ALERT).id)
        assert o.journal.escalations.list() == ()
    assert report.outcome == "escalated"
    assert not (home / NOTIFICATIONS).exists()
    (call,) = report.would_have_called
    assert (call.policy, call.called) == ("p", ("bob",))
    assert report.incident.id in call.subject
    text = (home / "reports" / f"{report.incident.id}.md").read_text()
    assert "Called: bob would have been called (policy p): " in text
    assert not any(isinstance(event, EscalationStarted | LevelReached) for event in report.timeline)


def test_an_incident_that_is_handed_over_outside_of_its_run_calls_nobody_either(
    home: Path, lamp: Lamp
) -> None:
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED, observe_only=True) as o:
        incident = o.open(ALERT).id
        hand_over(o, incident, "no worker goes on with it")
        rules = o.site.escalation
        for _ in range(2):
            assert (
                o.journal.escalations.start_unclaimed(incident, rules, reason="none knows its host") is None
            )
        assert o.journal.escalations.list() == ()
        assert [call.called for call in o.report(incident).would_have_called] == [("bob",), ("bob",)]


def test_what_others_left_to_be_sent_is_not_sent_by_who_only_observes(home: Path, lamp: Lamp) -> None:
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED) as o:
        hand_over(o, o.open(ALERT).id, "unclear")
        (waiting,) = o.journal.escalations.list()
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED, observe_only=True) as o:
        run_through(o, o.open(ALERT).id)
        assert not (home / NOTIFICATIONS).exists()
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED) as o:
        run_through(o, o.open(ALERT).id, wait=False)
    assert waiting.id in (home / NOTIFICATIONS).read_text()


@pytest.mark.parametrize("observing", [True, False])
def test_a_worker_that_only_observes_leaves_calls_to_others(
    home: Path, lamp: Lamp, monkeypatch: pytest.MonkeyPatch, observing: bool
) -> None:
    with orchestrator(home, lamp, prefers("switch"), escalation=PAGED) as o:
        hand_over(o, o.open(ALERT).id, "unclear")
    (home / "inventory.yaml").write_text("hosts: [{name: house}]\n")
    (home / "config.yaml").write_text(f"observe_only: {str(observing).lower()}\n")
    monkeypatch.setenv("WATCHKEEPER_HOME", str(home))
    monkeypatch.setattr("watchkeeper.cli.models.ensure_pulled", lambda *_: None)
    ended = CliRunner().invoke(build_app(), ["serve", "--once"])
    assert ended.exit_code == 0, ended.output
    assert ("it calls nobody" in ended.output) is observing
    assert (home / NOTIFICATIONS).exists() is not observing
