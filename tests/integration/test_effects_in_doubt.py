"""An effect in doubt waits for a person's word as long as it takes, and the command line takes it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from tests.lamp import ALERT, ALLOW, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator
from watchkeeper.runtime.approvals import Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.errors import AuditError
from watchkeeper.runtime.handing_over import hand_over
from watchkeeper.runtime.incidents import IncidentStatus
from watchkeeper.runtime.ledger import Effect, EffectState, Ledger
from watchkeeper.runtime.restoring_records import make_safe
from watchkeeper.runtime.steps import StepStatus


class PowerCutError(Exception):
    """The process ends between an effect and its outcome."""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with folder_in_memory() as folder:
        monkeypatch.setenv("WATCHKEEPER_HOME", str(folder / "home"))
        yield folder / "home"


def opened(home: Path, *, knows: bool = False, ttl: float = 600, observe: bool = False) -> Orchestrator:
    lamp = Lamp(home.parent) if home.exists() else Lamp.dark(home.parent, switch="off")
    return orchestrator(
        home,
        lamp,
        prefers("switch"),
        rules=ALLOW,
        knows=knows,
        approval_ttl_seconds=ttl,
        observe_only=observe,
    )


def cut_off(o: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run an incident until its effect took place, which nobody could write down any more."""

    def die(*_: object, **__: object) -> NoReturn:
        raise PowerCutError

    incident = o.open(ALERT).id
    with monkeypatch.context() as cut:
        cut.setattr(Ledger, "complete", die)
        with pytest.raises(PowerCutError):
            list(o.resume(incident))
    return incident


def asked(o: Orchestrator, incident: str) -> Approval:
    (found,) = o.journal.approvals.list(incident_id=incident, status=ApprovalStatus.PENDING)
    assert found.kind is ApprovalKind.IN_DOUBT
    return found


def effect_of(o: Orchestrator, incident: str) -> Effect:
    (effect,) = o.journal.ledger.list(incident)
    return effect


def watchkeeper(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "watchkeeper.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("word", ["done", "not-done"])
def test_what_nobody_said_in_time_is_said_after_the_incident_ended(
    home: Path, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home, ttl=1) as o:
        incident = cut_off(o, monkeypatch)
        list(o.resume(incident))
        question = asked(o, incident).id
        assert o.journal.incidents.get(incident).status is IncidentStatus.ESCALATED
        assert "still in doubt" in o.report(incident).reason
        assert len(o.journal.ledger.touches(o.journal.now() + timedelta(days=9))) == 1
    listed = watchkeeper("approvals", "list").stdout
    assert question in listed
    assert "never" in listed
    assert f"watchkeeper approvals done (or not-done) {question}" in watchkeeper("doctor").stdout
    assert "never; its incident is handed over" in watchkeeper("approvals", "show", question).stdout
    said = watchkeeper("approvals", word, question, "--reason", "I looked")
    assert said.returncode == 0, said.stderr
    with opened(home) as o:
        effect = effect_of(o, incident)
        assert effect.state is (EffectState.DONE if word == "done" else EffectState.NOT_DONE)
        assert effect.settled_by == o.journal.approvals.get(question).decided_by
        step = o.journal.steps.get(effect.step_id)
        assert step.status is (StepStatus.APPLIED if word == "done" else StepStatus.FAILED)
        assert o.journal.ledger.touches(o.journal.now() + timedelta(days=9)) == ()
        kinds = [event.kind for event in o.journal.incidents.events(incident)]
        assert kinds[-2:] == ["approval-decided", "effect-done"]
        audited = [entry.kind for entry in o.journal.audit.entries()]
        assert audited[-3:] == ["approval-answered", "approval-decided", "effect-done"]
    assert "effect in doubt" not in watchkeeper("doctor").stdout
    again = watchkeeper("approvals", "done", question)
    assert again.returncode != 0
    assert f"was answered {word}" in again.stderr


def test_an_answer_that_cannot_be_audited_settles_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritable(kind: str, body: object) -> None:
        if kind == "effect-done":
            raise AuditError("the disk is full")

    with opened(home) as o:
        incident = cut_off(o, monkeypatch)
        list(o.resume(incident, wait=False))
        question = asked(o, incident).id
        with monkeypatch.context() as outage:
            outage.setattr(o.journal.audit, "append", unwritable)
            with pytest.raises(AuditError):
                o.answer(question, "done", by="bob")
        assert effect_of(o, incident).state is EffectState.INTENDED
        assert asked(o, incident).id == question
        o.answer(question, "done", by="bob")
        assert effect_of(o, incident).state is EffectState.DONE
        list(o.resume(incident))
        assert o.journal.incidents.get(incident).status is IncidentStatus.RESOLVED


def observed(o: Orchestrator, incident: str) -> None:
    with opened(o.settings.home, observe=True) as watching:
        list(watching.resume(incident))


@pytest.mark.parametrize("knows", [True, False])
def test_going_on_with_an_ended_incident_looks_and_asks(
    home: Path, knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home) as o:
        incident = cut_off(o, monkeypatch)
        observed(o, incident)
        assert o.journal.incidents.get(incident).status is IncidentStatus.ESCALATED
        assert effect_of(o, incident).in_doubt
        assert o.journal.approvals.list(incident_id=incident) == ()
    assert f"run --resume {incident}: it looks, and asks" in watchkeeper("doctor").stdout
    with opened(home, knows=knows) as o:
        for _ in range(2):
            list(o.resume(incident))
        if knows:
            assert effect_of(o, incident).state is EffectState.DONE
            return
        assert o.answer(asked(o, incident).id, "done", by="bob").decided_by == "bob"
        assert effect_of(o, incident).state is EffectState.DONE


def test_what_was_begun_to_be_taken_back_is_taken_back_after_the_end(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home) as o:
        incident = o.open(ALERT).id
        list(o.resume(incident))
        o.journal.ledger.intend_rollback(effect_of(o, incident).key)
        list(o.resume(incident))
        assert effect_of(o, incident).state is EffectState.ROLLED_BACK
        assert Lamp(home.parent).parts()["switch"] == "off"


def test_a_hand_over_outside_of_the_graph_asks_what_happened(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home) as o:
        incident = cut_off(o, monkeypatch)
        hand_over(o, incident, "no worker could go on with it")
        assert "in doubt, may have been done" in o.report(incident).model_dump_json()
        o.answer(asked(o, incident).id, "not-done", by="bob")
        assert effect_of(o, incident).state is EffectState.NOT_DONE


@pytest.mark.parametrize("ended", [True, False])
def test_after_a_restore_the_question_is_put_anew(
    home: Path, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(home, ttl=1 if ended else 600) as o:
        incident = cut_off(o, monkeypatch)
        list(o.resume(incident, wait=ended))
        first = asked(o, incident)
        time.sleep(0.01)
        make_safe(o.journal.store, o.journal.now())
    with opened(home) as o:
        list(o.resume(incident, wait=False))
        again = asked(o, incident)
        assert again.id != first.id
        o.answer(again.id, "done", by="bob")
        assert effect_of(o, incident).state is EffectState.DONE
