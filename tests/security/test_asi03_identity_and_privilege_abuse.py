"""ASI03, Identity and Privilege Abuse: a yes is another person's, for one exact action, once, for a time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import handle, without_approval
from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import Orchestrator
from watchkeeper.runtime.approvals import Approval
from watchkeeper.runtime.errors import ApprovalError


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


def asked(o: Orchestrator) -> Approval:
    """Run to the first question and return it."""
    incident = o.open(ALERT)
    for _ in o.resume(incident.id, wait=False):
        pass
    (approval,) = o.journal.approvals.list(incident_id=incident.id)
    return approval


def test_whoever_asks_cannot_say_yes_and_neither_can_the_agents(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch"), requester="watchkeeper") as o:
        question = asked(o)
        with pytest.raises(ApprovalError, match="another person must"):
            o.answer(question.id, "approve", by="watchkeeper")
        with pytest.raises(ApprovalError):
            o.changes.apply(question.step_id, question.id)
    assert lamp.parts()["switch"] == "off"


def test_one_person_alone_approves_nothing_that_cannot_be_undone(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, fuse="blown")
    with orchestrator(home, lamp, prefers("fuse"), solo=True) as o:
        report = handle(o)
    assert (report.outcome, without_approval(report), lamp.parts()["fuse"]) == ("escalated", [], "blown")


def test_a_yes_is_used_once(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(home, lamp, prefers("switch")) as o:
        report = handle(o)
        (approval,) = report.approvals
        before = sum(lamp.changes().values())
        o.changes.apply(approval.step_id, approval.id)  # replayed: done at most once
        with pytest.raises(ApprovalError):
            o.journal.approvals.use(approval.id, approval.digest)
        with pytest.raises(ApprovalError):
            o.answer(approval.id, "approve", by="bob")
    assert sum(lamp.changes().values()) == before


def test_a_yes_does_not_hold_for_another_action(tmp_path: Path, home: Path) -> None:
    lamp = Lamp.dark(tmp_path, switch="off", fuse="blown")
    with orchestrator(home, lamp, prefers("switch")) as o:
        question = asked(o)
        o.answer(question.id, "approve", by="bob")
        other = o.changes.propose(
            question.incident_id, host="house", action="fuse.bridge", arguments={}, hypothesis="", key="other"
        )
        o.changes.decide(other.id)
        with pytest.raises(ApprovalError):
            o.changes.apply(other.id, question.id)
        with pytest.raises(ApprovalError):
            o.journal.approvals.use(question.id, "0" * 64)
    assert lamp.parts()["fuse"] == "blown"
