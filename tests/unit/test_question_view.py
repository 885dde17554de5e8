"""Who is asked sees what, where, why, what undoes it and what else there was; and nothing hides in it."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from tests.lamp import ALERT, Lamp, folder_in_memory, orchestrator, prefers
from watchkeeper import ActionPlan, Inventory, Target
from watchkeeper.cli.question import diff_lines, question_lines, show_question
from watchkeeper.runtime.events import ApprovalRequested
from watchkeeper.runtime.question_view import QuestionView, view_question
from watchkeeper.tools.action import ActionView
from watchkeeper.tools.actions.service import ServiceRestart
from watchkeeper.tools.host import LocalHost
from watchkeeper.tools.supervisors import RunState, ServiceState

HOSTILE = (
    "api\x1b[2K\x1b[1A\x07",
    "\N{RIGHT-TO-LEFT OVERRIDE}lortnoc\N{POP DIRECTIONAL FORMATTING}",
    "zero\N{ZERO WIDTH SPACE}width",
    "one\r\npolicy        tier 1: allowed",
    "isolate\N{RIGHT-TO-LEFT ISOLATE}d",
    "[bold red]approved[/bold red] [link=http://x]",
)


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_in_memory() as folder:
        yield folder / "home"


@pytest.fixture
def view(home: Path, tmp_path: Path) -> QuestionView:
    lamp = Lamp.dark(tmp_path, switch="off", bulb="dusty")
    with orchestrator(home, lamp, prefers("switch")) as o:
        incident = o.open(ALERT)
        for event in o.resume(incident.id, wait=False):
            if isinstance(event, ApprovalRequested):
                asked = o.journal.approvals.get(event.approval_id)
        return view_question(o.journal.store, asked)


def test_a_question_is_shown_with_its_reasons(view: QuestionView) -> None:
    assert (view.action, view.host, view.arguments) == ("switch.set", "house", {"position": "on"})
    assert "switch was turned off" in view.hypothesis
    assert [claim.text for claim in view.evidence] == ["The switch is off."]
    assert all(id_.startswith("E") for claim in view.evidence for id_ in claim.evidence_ids)
    assert (view.reversibility, view.undo) == (
        "reversible",
        "taking it back restores the state before, exactly",
    )
    assert view.lines == (("switch", "off"),)
    causes = [option for option in view.alternatives if option.question == "What is the root cause?"]
    assert [option.chosen for option in causes] == [True, False]
    assert sum(option.probability for option in causes) == pytest.approx(1)
    shown = dict(question_lines(view))
    assert shown["risk"] == "sparks"
    assert shown["asked by"].startswith("ann at ")
    assert shown["expires"].endswith("silence is a no")


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_in_a_question_steers_a_terminal_or_passes_for_another_line(
    view: QuestionView, text: str
) -> None:
    spoiled = view.model_copy(
        update={
            "approval": view.approval.model_copy(update={"summary": text, "requester": text}),
            "arguments": {text: text},
            "hypothesis": text,
            "evidence": tuple(c.model_copy(update={"text": text}) for c in view.evidence),
            "lines": ((text, text), ("policy", text)),
            "risk": text,
            "undo": text,
            "diff": f"+{text}\n-{text}",
        }
    )
    pairs = [*question_lines(spoiled), *diff_lines(spoiled)]
    assert all(character.isprintable() for pair in pairs for part in pair for character in part)
    # A line that a text begins has no name of its own, and what an action says stands under its own name.
    policies = [said for name, said in question_lines(spoiled) if name == "policy"]
    assert policies == [f"tier {view.approval.tier}: {view.policy}"]
    shown = io.StringIO()
    show_question(Console(file=shown, width=200, force_terminal=False), spoiled)
    assert "\x1b" not in shown.getvalue()
    if "[" in text and "\x1b" not in text:
        assert text in shown.getvalue()


def test_a_service_is_shown_with_its_state_and_what_needs_it() -> None:
    inventory = Inventory.model_validate(
        {
            "hosts": [
                {
                    "name": "web-1",
                    "services": [
                        {"name": "db", "supervisor": {"kind": "systemd"}},
                        {"name": "api", "supervisor": {"kind": "systemd"}, "depends_on": ["db"]},
                    ],
                }
            ]
        }
    )
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    before = ServiceState(
        state=RunState.RUNNING, pid=7, started=now.replace(hour=9), since=now.replace(hour=9), now=now
    )
    plan = ActionPlan(
        key="k",
        summary="restart service db",
        details={"service": "db", "before": before.model_dump(mode="json")},
        preconditions={"service": "db", "run_state": "up"},
        risk="requests in flight are lost",
    )
    target = Target(LocalHost("web-1"), inventory.host("web-1"), Path("/nonexistent"))
    view = ServiceRestart().view(target, plan)
    assert isinstance(view, ActionView)
    shown = dict(view.lines)
    assert shown["state"].startswith("running for 3:00:00")
    assert shown["needed by"] == "api"
    assert "requests in flight" in view.undo
