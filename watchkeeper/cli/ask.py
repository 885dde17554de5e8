"""Asking a person at the terminal, while a second terminal may answer too."""

from __future__ import annotations

import select
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from watchkeeper.cli.question import show_question
from watchkeeper.cli.terminal import Terminal, forget_what_was_typed
from watchkeeper.runtime.approval_types import WORDED
from watchkeeper.runtime.approvals import Answer, Approval, ApprovalKind, ApprovalStatus
from watchkeeper.runtime.errors import ApprovalError
from watchkeeper.runtime.question_view import view_question
from watchkeeper.runtime.wording import visible
from watchkeeper.tools.errors import ToolError

if TYPE_CHECKING:
    from watchkeeper.runtime.orchestrator import Orchestrator

_QUESTION = (
    "[bold]Approve?[/bold] \\[y]es, \\[n]o WHY, \\[e]dit NAME=VALUE, \\[r]espond TEXT, "
    "escalate WHY or terminate WHY"
)
_WHY = "Why? Nothing is answered yet: this answer needs words."
_WHY_OR_NOT = "Why? (Enter alone: no reason is given)"
_DOUBT = "[bold]Was it done?[/bold] \\[y]es or \\[n]o"
_WORDS = {
    "y": Answer.APPROVE,
    "yes": Answer.APPROVE,
    "approve": Answer.APPROVE,
    "n": Answer.REJECT,
    "no": Answer.REJECT,
    "reject": Answer.REJECT,
    "e": Answer.EDIT,
    "edit": Answer.EDIT,
    "r": Answer.RESPOND,
    "respond": Answer.RESPOND,
    "escalate": Answer.ESCALATE,
    "terminate": Answer.TERMINATE,
}
_DOUBT_WORDS = {
    "y": Answer.DONE,
    "yes": Answer.DONE,
    "done": Answer.DONE,
    "n": Answer.NOT_DONE,
    "no": Answer.NOT_DONE,
    "not-done": Answer.NOT_DONE,
}

_EXPLAINED = {Answer.REJECT, Answer.ESCALATE, Answer.TERMINATE}
"""Answers whose reason is asked for, where none was typed with them."""


@dataclass(frozen=True, slots=True)
class TerminalAnswerer:
    """Shows a question with its diff and reads the answer; gives way to one that comes from elsewhere.

    Attributes:
        terminal: Where it is shown.
    """

    terminal: Terminal

    @property
    def console(self) -> Console:
        """Where it is written."""
        return self.terminal.console

    def __call__(self, orchestrator: Orchestrator, approval: Approval) -> None:
        """Ask until the question is answered, here or elsewhere."""
        if approval.status is not ApprovalStatus.PENDING:
            return
        with self.terminal.asking(approval.id):
            self._ask(orchestrator, approval)

    def _ask(self, orchestrator: Orchestrator, approval: Approval) -> None:
        self._show(orchestrator, approval)
        forget_what_was_typed()
        doubt = approval.kind is ApprovalKind.IN_DOUBT
        self.console.print(_DOUBT if doubt else _QUESTION)
        self.console.print(
            f"or in another terminal: watchkeeper approvals {'done' if doubt else 'approve'} {approval.id}",
            highlight=False,
        )
        self.terminal.mark()
        unexplained: Answer | None = None
        try:
            while orchestrator.journal.approvals.get(approval.id).waits(orchestrator.journal.now()):
                if orchestrator.journal.halts.current() is not None:
                    return  # everything was stopped: the run says so, and asks again when it goes on
                ready, _, _ = select.select([sys.stdin], [], [], 0.5)
                if not ready:
                    continue
                line = sys.stdin.readline()
                self.terminal.typed()
                if not line:
                    self._leave(orchestrator, approval, unexplained)
                    return
                unexplained = self._take(orchestrator, approval, line.strip(), unexplained)
                if orchestrator.journal.approvals.get(approval.id).waits(orchestrator.journal.now()):
                    self.terminal.mark()
        except KeyboardInterrupt:
            if unexplained is Answer.REJECT:
                self._try(orchestrator, approval, Answer.REJECT, "")
            raise

    def _take(
        self, orchestrator: Orchestrator, approval: Approval, line: str, unexplained: Answer | None
    ) -> Answer | None:
        """Take a line: an answer, or why it is given; returns an answer that still waits for its reason."""
        doubt = approval.kind is ApprovalKind.IN_DOUBT
        if unexplained is not None:
            return None if self._try(orchestrator, approval, unexplained, line) else unexplained
        word, _, rest = line.partition(" ")
        answer = (_DOUBT_WORDS if doubt else _WORDS).get(word.lower())
        if answer is None:
            self.console.print(_DOUBT if doubt else _QUESTION)
            return None
        if answer in _EXPLAINED and not rest.strip():
            self.console.print(_WHY if answer in WORDED else _WHY_OR_NOT)
            return answer
        self._try(orchestrator, approval, answer, rest.strip())
        return None

    def _leave(self, orchestrator: Orchestrator, approval: Approval, unexplained: Answer | None) -> None:
        """Leave a question to others; a no that was typed is one, with or without a reason."""
        if unexplained is Answer.REJECT and self._try(orchestrator, approval, Answer.REJECT, ""):
            return
        self.console.print("\n(end of input: another terminal must answer)")

    def _try(self, orchestrator: Orchestrator, approval: Approval, answer: Answer, rest: str) -> bool:
        """Give an answer; False where it is not taken."""
        try:
            given = self._give(orchestrator, approval, answer, rest)
        except (ApprovalError, ToolError) as error:
            self.console.print(f"[red]{escape(visible(str(error)))}[/red]")
            return False
        if given.status is ApprovalStatus.PENDING:
            self.console.print("This takes several people: another one must approve it, too.")
        return True

    def _give(self, orchestrator: Orchestrator, approval: Approval, answer: Answer, rest: str) -> Approval:
        if answer is not Answer.EDIT:
            return orchestrator.answer(approval.id, answer, reason=rest)
        from watchkeeper.cli.edits import parse_changes

        step = orchestrator.journal.steps.get(approval.step_id)
        try:
            pairs = shlex.split(rest)
        except ValueError as error:
            raise ApprovalError(f"{rest!r} cannot be read: {error}") from error
        return orchestrator.answer(approval.id, answer, arguments=step.arguments | parse_changes(pairs))

    def _show(self, orchestrator: Orchestrator, approval: Approval) -> None:
        self.console.rule(f"[bold yellow]{escape(approval.id)}[/bold yellow] tier {approval.tier}")
        show_question(self.console, view_question(orchestrator.journal.store, approval))
        self.console.rule()


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
