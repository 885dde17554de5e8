"""A question at the terminal is answered by who has seen it."""

import io
import os
import pty
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.lamp import ALERT, Lamp, orchestrator, prefers
from watchkeeper import Orchestrator
from watchkeeper.cli.ask import TerminalAnswerer
from watchkeeper.cli.run import handle
from watchkeeper.cli.terminal import MARK, Terminal
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalStatus
from watchkeeper.runtime.incidents import IncidentStatus


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


@dataclass(frozen=True)
class Asking:
    """A question that is being put at the terminal."""

    running: Orchestrator
    approval: Approval
    thread: threading.Thread
    shown: io.StringIO

    def now(self) -> Approval:
        """The question as it is kept."""
        return self.running.journal.approvals.get(self.approval.id)


@contextmanager
def asking(folder: Path) -> Iterator[Asking]:
    """Put a question at the terminal."""
    shown = io.StringIO()
    with orchestrator(folder / "home", Lamp.dark(folder, switch="off"), prefers()) as running:
        step = running.changes.propose(
            running.open(ALERT).id, host="house", action="switch.set", arguments={"position": "on"}, key="k"
        )
        running.changes.decide(step.id)
        asked = running.changes.ask(step.id)
        thread = threading.Thread(
            target=TerminalAnswerer(Terminal(Console(file=shown, width=200))), args=(running, asked)
        )
        thread.start()
        yield Asking(running, asked, thread, shown)


def answered(folder: Path, keyboard: int, *lines: tuple[str, str]) -> tuple[Approval, str]:
    """Ask at the terminal, and type each line once its text is shown; what came of it, and all texts."""
    with asking(folder) as question:
        for text, line in lines:
            wait_for(text, question.shown)
            os.write(keyboard, line.encode() + b"\n")
        question.thread.join(30)
        return question.now(), question.shown.getvalue()


def test_what_was_typed_before_a_question_was_shown_does_not_answer_it(tmp_path: Path, keyboard: int) -> None:
    os.write(keyboard, b"yes\n")
    given, shown = answered(tmp_path, keyboard, ("watchkeeper approvals approve", "no not now"))
    assert (given.status, given.reason) == (ApprovalStatus.REJECTED, "not now")
    assert "+switch: on" in shown


@pytest.mark.parametrize(("why", "kept"), [("not on a Friday", "not on a Friday"), ("", "")])
def test_who_says_no_and_no_more_is_asked_why(tmp_path: Path, keyboard: int, why: str, kept: str) -> None:
    given, _ = answered(tmp_path, keyboard, ("watchkeeper approvals approve", "n"), ("Why?", why))
    assert (given.status, given.reason) == (ApprovalStatus.REJECTED, kept)


def test_who_says_no_and_leaves_has_said_no(tmp_path: Path, keyboard: int) -> None:
    end_of_input = "\x04"
    given, _ = answered(tmp_path, keyboard, ("watchkeeper approvals approve", "n"), ("Why?", end_of_input))
    assert given.status is ApprovalStatus.REJECTED


def test_a_reason_is_never_taken_for_an_answer(tmp_path: Path, keyboard: int) -> None:
    given, shown = answered(
        tmp_path,
        keyboard,
        ("watchkeeper approvals approve", "terminate"),
        ("this answer needs words", ""),
        ("needs words: say why", "yes the server room burns"),
    )
    assert (given.answer, given.reason) == (Answer.TERMINATE, "yes the server room burns")
    assert "approve" not in shown.rpartition("needs words: say why")[2]


def test_a_stop_ends_the_question(tmp_path: Path, keyboard: int) -> None:
    with asking(tmp_path) as question:
        wait_for("watchkeeper approvals approve", question.shown)
        question.running.journal.halts.stop(by="bob", reason="enough")
        question.thread.join(10)
        assert not question.thread.is_alive()
        os.write(keyboard, b"yes\n")
        assert question.now().status is ApprovalStatus.PENDING


def test_who_is_asked_here_is_waited_for_whatever_is_said_of_other_terminals(
    tmp_path: Path, keyboard: int
) -> None:
    shown = io.StringIO()
    lamp = Lamp.dark(tmp_path, switch="off")
    with orchestrator(tmp_path / "home", lamp, prefers("switch"), solo=True) as running:
        incident = running.open(ALERT).id
        thread = threading.Thread(
            target=handle,
            args=(running, incident, Terminal(Console(file=shown, width=200))),
            kwargs={"approve": "ask", "wait": False},
        )
        thread.start()
        wait_for("watchkeeper approvals approve", shown)
        time.sleep(1)  # the run had time to end
        os.write(keyboard, b"yes\n")
        thread.join(30)
        assert running.journal.incidents.get(incident).status is IncidentStatus.RESOLVED


def test_where_to_type_is_marked_until_it_is_answered(tmp_path: Path, keyboard: int) -> None:
    given, shown = answered(tmp_path, keyboard, (f"\n{MARK}", "perhaps"), (f"WHY\n{MARK}", "yes"))
    assert given.status is ApprovalStatus.APPROVED
    assert shown.count(MARK) == 2
    assert shown.endswith(MARK)


def test_an_answer_from_elsewhere_ends_the_line_that_was_begun(tmp_path: Path, keyboard: int) -> None:
    with asking(tmp_path) as question:
        wait_for(MARK, question.shown)
        question.running.answer(question.approval.id, "approve", by="bob")
        question.thread.join(10)
        assert question.shown.getvalue().endswith(f"{MARK}\n")


def test_who_is_called_while_a_question_waits_here_does_not_write_where_is_typed() -> None:
    shown = io.StringIO()
    terminal = Terminal(Console(file=shown, width=200))
    with terminal.asking("APR-1"):
        terminal.mark()
        terminal.call("to everyone: APR-1 waits for an answer: set the switch (ESC-1)")
        assert shown.getvalue() == MARK
        terminal.typed()
        terminal.call("to everyone: APR-1 waits for an answer: set the switch (ESC-1)")  # called once more
        assert shown.getvalue().endswith("set the switch (ESC-1)\n")
        shown.truncate(0)
        shown.seek(0)
        terminal.mark()
        terminal.call("to ann: INC-2 was handed to people: APR-1 (ESC-2)")
        assert shown.getvalue() == f"{MARK}\nto ann: INC-2 was handed to people: APR-1 (ESC-2)\n{MARK}"
    assert shown.getvalue().endswith(f"{MARK}\n")
    terminal.call("to everyone: APR-1 waits for an answer")
    assert shown.getvalue().endswith("\nto everyone: APR-1 waits for an answer\n")
