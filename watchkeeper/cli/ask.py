"""Asking a person at the terminal, while a second terminal may answer too."""

from __future__ import annotations

import contextlib
import select
import sys
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.wording import visible

if TYPE_CHECKING:
    from watchkeeper.runtime.orchestrator import Orchestrator

_YES = {"y", "yes"}
_NO = {"n", "no"}


@dataclass(frozen=True, slots=True)
class TerminalAnswerer:
    """Shows a question with its diff and reads the answer; gives way to one that comes from elsewhere.

    Attributes:
        console: Where it is shown.
    """

    console: Console

    def __call__(self, orchestrator: Orchestrator, approval: Approval) -> None:
        """Ask until the question is answered, here or elsewhere."""
        if approval.status is not ApprovalStatus.PENDING:
            return
        self._show(approval)
        _forget_what_was_typed_before()
        doubt = approval.kind is ApprovalKind.IN_DOUBT
        question = "Was it done?" if doubt else "Approve?"
        self.console.print(f"[bold]{question}[/bold] \\[y]es / \\[n]o, or in another terminal: ", end="")
        self.console.print(f"watchkeeper approvals {'done' if doubt else 'approve'} {approval.id}")
        while orchestrator.journal.approvals.get(approval.id).status is ApprovalStatus.PENDING:
            ready, _, _ = select.select([sys.stdin], [], [], 0.5)
            if not ready:
                continue
            line = sys.stdin.readline()
            if not line:
                self.console.print("(end of input: another terminal must answer)")
                return
            word, _, reason = line.strip().partition(" ")
            if word.lower() not in _YES | _NO:
                self.console.print(
                    "Please answer y or n; a reason may follow: [dim]n not during the sale[/dim]"
                )
                continue
            yes = word.lower() in _YES
            answer = (
                (Answer.DONE if yes else Answer.NOT_DONE)
                if doubt
                else (Answer.APPROVE if yes else Answer.REJECT)
            )
            try:
                given = orchestrator.answer(approval.id, answer, reason=reason)
                if given.status is ApprovalStatus.PENDING:
                    self.console.print("This takes two people: another one must approve it, too.")
            except ApprovalError as error:
                self.console.print(f"[red]{escape(str(error))}[/red]")

    def _show(self, approval: Approval) -> None:
        self.console.rule(f"[bold yellow]{escape(approval.id)}[/bold yellow] tier {approval.tier}")
        self.console.print(escape(visible(approval.summary)), highlight=False)
        for line in approval.diff.splitlines():
            color = {"+": "green", "-": "red"}.get(line[:1], "")
            text = escape(visible(line))
            self.console.print(f"[{color}]{text}[/{color}]" if color else text, highlight=False)
        self.console.rule()


def _forget_what_was_typed_before() -> None:
    """Drop input from before a question was shown: it answers something else, or nothing."""
    with contextlib.suppress(termios.error, OSError, ValueError):  # there is no terminal
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


@dataclass(frozen=True, slots=True)
class FixedAnswerer:
    """Answers every question of its kind the same way.

    Attributes:
        approve: Whether the answer is yes.
        reason: Kept with the answer.
    """

    approve: bool
    reason: str

    def __call__(self, orchestrator: Orchestrator, approval: Approval) -> None:
        """Answer; a question whether an effect took place is left to a person."""
        if approval.kind is ApprovalKind.ACTION and approval.status is ApprovalStatus.PENDING:
            answer = Answer.APPROVE if self.approve else Answer.REJECT
            orchestrator.answer(approval.id, answer, reason=self.reason)


def nobody(orchestrator: Orchestrator, approval: Approval) -> None:
    """Leave a question to another terminal."""
    del orchestrator, approval
