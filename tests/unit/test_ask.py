"""A question at the terminal is answered by who has seen it."""

import io
import os
import pty
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.lamp import ALERT, Lamp, orchestrator, prefers
from watchkeeper.cli.ask import TerminalAnswerer
from watchkeeper.runtime.approvals import ApprovalStatus


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    typing, reading = pty.openpty()
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        yield typing
    os.close(typing)


def wait_for(text: str, shown: io.StringIO) -> None:
    deadline = time.monotonic() + 30
    while text not in shown.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert text in shown.getvalue()


def test_what_was_typed_before_a_question_was_shown_does_not_answer_it(tmp_path: Path, keyboard: int) -> None:
    lamp = Lamp.dark(tmp_path, switch="off")
    shown = io.StringIO()
    with orchestrator(tmp_path / "home", lamp, prefers()) as running:
        step = running.changes.propose(
            running.open(ALERT).id, host="house", action="switch.set", arguments={"position": "on"}, key="k"
        )
        running.changes.decide(step.id)
        asked = running.changes.ask(step.id)
        os.write(keyboard, b"yes\n")
        answering = threading.Thread(
            target=TerminalAnswerer(Console(file=shown, width=200)), args=(running, asked)
        )
        answering.start()
        wait_for("watchkeeper approvals approve", shown)
        os.write(keyboard, b"no not now\n")
        answering.join(30)
        answered = running.journal.approvals.get(asked.id)
    assert (answered.status, answered.reason) == (ApprovalStatus.REJECTED, "not now")
    assert "+switch: on" in shown.getvalue()
